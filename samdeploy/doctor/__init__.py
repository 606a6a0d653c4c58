"""`samdeploy doctor`: what this machine can run, what is wrong with a bundle, and the cure.

Nothing is guessed: runtimes are imported, every file of the bundle is hashed, and every engine is opened on the
bundle's golden images.
"""

from samdeploy.doctor.bundle import examine_bundle
from samdeploy.doctor.findings import Diagnosis
from samdeploy.doctor.machine import examine_machine

__all__ = ["Diagnosis", "examine_bundle", "examine_machine"]
