from feldspar.publish.directory import publish_run, write_checksums
from feldspar.publish.elsewhere import find_converter, push_to_hub, write_gguf
from feldspar.publish.serving import folder_to_serve, run_to_serve, serve_model
from feldspar.publish.talk import Conversationalist

__all__ = [
    "Conversationalist",
    "find_converter",
    "folder_to_serve",
    "publish_run",
    "push_to_hub",
    "run_to_serve",
    "serve_model",
    "write_checksums",
    "write_gguf",
]
