"""Parquet files of a few pairs, as the datasets hub writes them: parquet/*.parquet (pyarrow).

    python test/golden/io/parquet.py test/golden/io/parquet
"""
import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

out = Path(sys.argv[1])
out.mkdir(exist_ok=True)


def png(i):
    file = io.BytesIO()
    Image.frombytes("L", (4, 3), bytes(16 * i + j for j in range(12))).save(file, "PNG")
    return file.getvalue()


image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
rows = [{"bytes": png(i), "path": f"film{i}.png"} for i in range(5)]
texts = ["one", "zwei, drei", "no sign of a nodule", "ünter", "five"]
patients = [7, 7, 8, None, None]
feature = {"info": {"features": {"image": {"_type": "Image"}, "text": {"dtype": "string", "_type": "Value"}}}}
table = pa.table({"image": pa.array(rows, image), "text": texts, "patient_id": pa.array(patients, pa.int64())})
table = table.replace_schema_metadata({"huggingface": json.dumps(feature)})

for codec in ["none", "snappy", "gzip", "zstd", "brotli", "lz4"]:
    pq.write_table(table, out / f"{codec}.parquet", compression=codec, row_group_size=2)
pq.write_table(table, out / "v2.parquet", compression="snappy", data_page_version="2.0", write_page_index=True)
pq.write_table(table.rename_columns(["picture", "report", "who"]), out / "columns.parquet")
holes = pa.array([rows[0], None, {"bytes": None, "path": "x.png"}, {"bytes": b"no picture", "path": None}, rows[4]], image)
pq.write_table(pa.table({"image": holes, "text": ["a", "b", "c", "d", None]}), out / "holes.parquet")
names = pa.table({"file_name": ["a.png", "b.png"], "caption": ["one", "two"]})
pq.write_table(names, out / "names.parquet")
