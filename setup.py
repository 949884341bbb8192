"""Metadata is in setup.cfg; this adds the one compiled part, which is optional: see learner/quantile_kernel.py."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "learner._quantile_kernel",
            ["learner/quantile_kernel.c"],
            depends=["setup.py", "learner/quantile_kernel.h"],
            extra_compile_args=["-O3"],
            optional=True,
        )
    ]
)
