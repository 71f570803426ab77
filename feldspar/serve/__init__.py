from feldspar.serve.app import STAGE_HEADER, Complete, Draw, listening, make_app
from feldspar.serve.protocol import (
    ChatReply,
    ChatRequest,
    Choice,
    ModelCard,
    Pieces,
    RequestError,
    TextPiece,
    TextRequest,
    TokenScore,
)

__all__ = [
    "STAGE_HEADER",
    "ChatReply",
    "ChatRequest",
    "Choice",
    "Complete",
    "Draw",
    "ModelCard",
    "Pieces",
    "RequestError",
    "TextPiece",
    "TextRequest",
    "TokenScore",
    "listening",
    "make_app",
]
