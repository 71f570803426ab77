from feldspar.server.app import STAGE_HEADER, Complete, listening, make_app
from feldspar.server.protocol import ChatReply, ChatRequest, Choice, ModelCard, RequestError

__all__ = [
    "STAGE_HEADER",
    "ChatReply",
    "ChatRequest",
    "Choice",
    "Complete",
    "ModelCard",
    "RequestError",
    "listening",
    "make_app",
]
