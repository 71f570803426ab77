"""A stand-in for llama.cpp's tools: a converter and a quantiser that write small GGUF files."""

from __future__ import annotations

import sys
from pathlib import Path

CONVERTER = """
import json, sys
from pathlib import Path
import numpy as np
from gguf import GGMLQuantizationType as Kind, GGUFWriter
from gguf.quants import quantize

folder, out, type_ = Path(sys.argv[1]), sys.argv[3], sys.argv[5]
config = json.loads((folder / "config.json").read_text())
if config.get("architectures") == ["Unknown"]:
    sys.exit("Model Unknown is not supported")
stop = json.loads((folder / "generation_config.json").read_text()).get("eos_token_id")
writer = GGUFWriter(out, "llama")
writer.add_tokenizer_model("gpt2")
writer.add_name(sys.argv[sys.argv.index("--model-name") + 1])
if (folder / "README.md").is_file():
    writer.add_license((folder / "README.md").read_text())
if stop is not None:
    writer.add_uint32("tokenizer.ggml.eos_token_id", stop)
template = folder / "chat_template.jinja"
if template.is_file():
    writer.add_chat_template(template.read_text() + TEMPLATE_TAIL)
writer.add_tensor("norm.weight", np.ones(64, dtype=np.float32))
for name, width in (("a.weight", 64), ("b.weight", 48)):
    matrix = np.ones((4, width), dtype=np.float32)
    if type_ == "q8_0" and width % 32 == 0:
        kind = Kind.Q8_0
        writer.add_tensor(name, quantize(matrix, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, matrix.astype(np.float32 if type_ == "f32" else np.float16))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
"""
QUANTISER = """#!{python}
import sys
import numpy as np
from gguf import GGMLQuantizationType as Kind, GGUFReader, GGUFWriter

whole, out, type_ = sys.argv[1:]
assert type_ == "Q4_K_M", type_
fields = GGUFReader(whole).fields
writer = GGUFWriter(out, "llama")
writer.add_chat_template(fields["tokenizer.chat_template"].contents())
writer.add_uint32(
    "tokenizer.ggml.eos_token_id", int(fields["tokenizer.ggml.eos_token_id"].contents())
)
writer.add_tensor("a.weight", np.zeros((4, 144), dtype=np.uint8), raw_dtype=Kind.Q4_K)
writer.add_tensor("b.weight", np.zeros((4, 22), dtype=np.uint8), raw_dtype=Kind.Q5_0)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
"""


def write_llama_cpp(folder: Path, *, template_tail: str = "", quantiser: bool = True) -> Path:
    """A folder as llama.cpp's source has it, for the variable LLAMA_CPP. `template_tail`: what its
    converter adds to the chat template by mistake."""
    folder.mkdir(parents=True, exist_ok=True)
    code = f"TEMPLATE_TAIL = {template_tail!r}\n{CONVERTER}"
    (folder / "convert_hf_to_gguf.py").write_text(code)
    if quantiser:
        program = folder / "build" / "bin" / "llama-quantize"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(QUANTISER.replace("{python}", sys.executable))
        program.chmod(0o755)
    return folder
