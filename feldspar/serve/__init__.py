from feldspar.serve.app import STAGE_HEADER, Complete, Draw, listening, make_app
from feldspar.serve.protocol import (
    ChatReply,
    ChatRequest,
    Choice,
    ModelCard,
    Piece,
    Pieces,
    RequestError,
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
    "Piece",
    "Pieces",
    "RequestError",
    "TextRequest",
    "TokenScore",
    "listening",
    "make_app",
]
