from feldspar.plan.cluster import Cluster, named_cluster
from feldspar.plan.cluster_plan import ClusterPlan, plan_on_cluster
from feldspar.plan.cost import STATED, CallPlan, Given, PhasePlan, Plan, Rate, make_plan
from feldspar.plan.machine import Machine, machine_here, named_machine

__all__ = [
    "STATED",
    "CallPlan",
    "Cluster",
    "ClusterPlan",
    "Given",
    "Machine",
    "PhasePlan",
    "Plan",
    "Rate",
    "machine_here",
    "make_plan",
    "named_cluster",
    "named_machine",
    "plan_on_cluster",
]
