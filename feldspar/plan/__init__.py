from feldspar.plan.cost import PhasePlan, Plan, make_plan

__all__ = ["PhasePlan", "Plan", "make_plan"]
