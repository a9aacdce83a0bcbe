"""Build `robustacc` from `settings.ini`, the one place its version and requirements are written."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_namespace_packages, setup

here = Path(__file__).resolve().parent
parser = ConfigParser(delimiters=["="])
parser.read(here / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]
readme = here / "README.md"

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    url=settings["git_url"],
    keywords=settings["keywords"],
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_namespace_packages(include=["robustacc", "robustacc.*"], exclude=["*.__pycache__", "robustacc.site", "robustacc.site.*"]),  # folders of data too; the site needs a checkout
    package_data={"robustacc": ["paper_tables/*.csv", "py.typed"]},
    python_requires=f">={settings['min_python']}",
    install_requires=settings["requirements"].split(),
    extras_require={extra: settings[f"{extra}_requirements"].split() for extra in ("audit", "faiss", "gpu", "accelerate", "slurm", "cli", "browser", "dev")},
    entry_points={"console_scripts": [f"{settings['lib_name']}={settings['lib_name']}.cli:main"],
                  "nbdev": [f"{settings['lib_name']}={settings['lib_name']}._modidx:d"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    zip_safe=False,
)
