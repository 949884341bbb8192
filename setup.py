"""Metadata is in setup.cfg; this adds the one compiled part, which is optional: see learner/maths/kernels/."""

from setuptools import Extension, setup

FASTER_SUMS = ["-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno"]
"""Sums in any order, so that they can be done by vectors. Infinity and not-a-number keep their meaning."""

setup(
    ext_modules=[
        Extension(
            "learner.maths.kernels._quantile_kernel",
            ["learner/maths/kernels/quantile_kernel.c", "learner/maths/kernels/critic_kernel.c"],
            depends=["setup.py", "learner/maths/kernels/quantile_kernel.h"],
            extra_compile_args=["-O3", *FASTER_SUMS],
            optional=True,
        )
    ]
)
