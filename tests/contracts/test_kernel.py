"""The suite of kernels over all exported ones."""

from exported import exported_finals

from calmkit import scoring
from calmkit.scoring import GaussianKernel, InverseMultiquadricKernel, Kernel, LaplaceKernel
from calmkit.testing import parametrize_contracts

KERNELS = (GaussianKernel, InverseMultiquadricKernel, LaplaceKernel)


def test_every_exported_kernel_is_here():
    assert {kernel.__name__ for kernel in KERNELS} == exported_finals(scoring, Kernel)


@parametrize_contracts(
    "kernel",
    {kernel.__name__: kernel for kernel in KERNELS}
    | {
        f"{kernel.__name__}, several bandwidths": lambda kernel=kernel: kernel([1e-2, 1.0, 30.0])
        for kernel in KERNELS
    },
    profile="quick",
)
def test_contract(check):
    check()
