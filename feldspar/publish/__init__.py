from feldspar.publish.directory import publish_run
from feldspar.publish.serving import serve_run
from feldspar.publish.talk import Conversationalist

__all__ = ["Conversationalist", "publish_run", "serve_run"]
