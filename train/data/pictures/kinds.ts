/** The kinds of pictures that are read, by the names people give them; what a file is, its first bytes tell. */
const PICTURE = /\.(png|jpe?g|jpe|webp|bmp|tiff?|dcm|dicom)$/i;

/** Whether a name is that of a picture. */
export const isPictureName = (name: string): boolean => PICTURE.test(name);
