"""Small instances of every scoring rule; the completeness test keeps this list whole."""

from calmkit.scoring import (
    ChunkedScore,
    DawidSebastianiScore,
    EnergyScore,
    GaussianKernel,
    InverseMultiquadricKernel,
    KernelScore,
    LaplaceKernel,
    MarginalCRPS,
    SampledTarget,
    SlicedCRPS,
    SpreadWeighted,
    VariogramScore,
    WeightedSum,
)

RULES = {
    EnergyScore: (EnergyScore(), EnergyScore(0.5), EnergyScore(1.7)),
    KernelScore: (
        KernelScore(GaussianKernel()),
        KernelScore(LaplaceKernel([0.5, 1.0, 2.0])),
        KernelScore(InverseMultiquadricKernel(2.0)),
    ),
    MarginalCRPS: (MarginalCRPS(),),
    SlicedCRPS: (SlicedCRPS(3),),
    VariogramScore: (VariogramScore(), VariogramScore(0.8), VariogramScore(1.0)),
    DawidSebastianiScore: (DawidSebastianiScore(),),
    WeightedSum: (WeightedSum([EnergyScore(), SlicedCRPS(2)], [2.0, 0.5]),),
    SpreadWeighted: (SpreadWeighted(EnergyScore(), 0.5),),
    SampledTarget: (SampledTarget(EnergyScore(), 3), SampledTarget(SlicedCRPS(2), 3)),
    ChunkedScore: (ChunkedScore(EnergyScore(), 1000),),
}
