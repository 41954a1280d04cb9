"""BibTeX entries of the paper and of this software, in agreement with CITATION.cff."""

from layerangles.versions import VERSION

PAPER = """@inproceedings{yu-etal-2025-revisiting,
  title     = {Revisiting Intermediate-Layer Matching in Knowledge Distillation:
               Layer-Selection Strategy Doesn't Matter (Much)},
  author    = {Yu, Zony and Wen, Yuqiao and Mou, Lili},
  booktitle = {Findings of the Association for Computational Linguistics: IJCNLP-AACL 2025},
  address   = {Mumbai, India},
  month     = dec,
  year      = {2025},
  pages     = {1686--1694},
  url       = {https://aclanthology.org/2025.findings-ijcnlp.105/},
  eprint    = {2502.04499},
  archivePrefix = {arXiv}
}"""

SOFTWARE = f"""@software{{layerangles,
  title   = {{layerangles: angles between teacher layers, seen from the student,
             for knowledge distillation}},
  author  = {{{{The layerangles developers}}}},
  version = {{{VERSION}}},
  license = {{Apache-2.0}}
}}"""
