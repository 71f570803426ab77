from feldspar.world.build import make_world
from feldspar.world.serve import start_teacher

__all__ = ["make_world", "start_teacher"]
