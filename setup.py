"""Metadata is in setup.cfg; this adds the one compiled part, which is optional: see learner/quantile_kernel.py."""

from setuptools import Extension, setup

FASTER_SUMS = ["-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno"]
"""Sums in any order, so that they can be done by vectors. Infinity and not-a-number keep their meaning."""

setup(
    ext_modules=[
        Extension(
            "learner._quantile_kernel",
            ["learner/quantile_kernel.c", "learner/critic_kernel.c"],
            depends=["setup.py", "learner/quantile_kernel.h"],
            extra_compile_args=["-O3", *FASTER_SUMS],
            optional=True,
        )
    ]
)
