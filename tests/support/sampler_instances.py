"""Every exported sampler; the completeness test keeps this list whole."""

from calmkit.sampling import (
    BatchTemperature,
    ExactTemperature,
    MostFrequent,
    PlainSampler,
    SoftmaxSampler,
)

SAMPLERS = {
    PlainSampler: PlainSampler,
    ExactTemperature: ExactTemperature,
    BatchTemperature: lambda temperature: BatchTemperature(temperature, candidates=24),
    MostFrequent: lambda: MostFrequent(24),
    SoftmaxSampler: SoftmaxSampler,
}
