from feldspar.publish.directory import publish_run, write_checksums
from feldspar.publish.push import find_converter, push_to_hub, write_gguf

__all__ = [
    "find_converter",
    "publish_run",
    "push_to_hub",
    "write_checksums",
    "write_gguf",
]
