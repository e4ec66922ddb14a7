"""Known faults of torch: which of them this machine's torch has, found by small probes, and what this library does."""

from deq.interop.doctor.faults import FAULTS as FAULTS
from deq.interop.doctor.faults import Fault as Fault
from deq.interop.doctor.run import Finding as Finding
from deq.interop.doctor.run import State as State
from deq.interop.doctor.run import diagnose as diagnose
