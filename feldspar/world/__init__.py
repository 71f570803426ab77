from feldspar.world.making import make_world
from feldspar.world.serve import start_teacher

__all__ = ["make_world", "start_teacher"]
