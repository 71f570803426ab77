from feldspar.plan.cost import CallPlan, Given, PhasePlan, Plan, Rate, make_plan
from feldspar.plan.machine import Machine, machine_here, named_machine

__all__ = [
    "CallPlan",
    "Given",
    "Machine",
    "PhasePlan",
    "Plan",
    "Rate",
    "machine_here",
    "make_plan",
    "named_machine",
]
