from feldspar.publish.directory import publish_run, write_checksums
from feldspar.publish.elsewhere import find_converter, push_to_hub, write_gguf
from feldspar.publish.serving import serve_run
from feldspar.publish.talk import Conversationalist

__all__ = [
    "Conversationalist",
    "find_converter",
    "publish_run",
    "push_to_hub",
    "serve_run",
    "write_checksums",
    "write_gguf",
]
