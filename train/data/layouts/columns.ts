/** What people call the columns of tables, the usual name first. */

/** What the column of the pictures' names is called, the usual name first. */
export const FILE_COLUMNS = ['file_name', 'filename', 'file', 'image_path', 'image_file', 'image', 'path'];
/** What the column of the texts is called. */
export const TEXT_COLUMNS = ['text', 'caption', 'prompt', 'description'];
/** Optional columns that tell whose image it is. */
export const PATIENT_COLUMNS = ['patient', 'patient_id', 'subject_id'] as const;

/** A patient's name; undefined for what programs write where it is not known, which must never become one patient. */
export const knownPatient = (value: unknown): string | undefined => {
  const name = typeof value === 'number' && Number.isFinite(value) ? String(value) : value;
  if (typeof name !== 'string') return undefined;
  const plain = name.trim();
  return /^(|nan|null|none|nil|na|n\/a|#n\/a|<na>|nat|unknown|undefined|missing|[-–—?.]+)$/i.test(plain)
    ? undefined
    : plain;
};
