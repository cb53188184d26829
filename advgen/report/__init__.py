"""A run folder as one HTML page that stands alone: what was trained, how it went, what came of it.

``data`` reads the folder, ``figures`` draws, ``page`` puts both into ``template.html.j2``.
"""

from advgen.report.page import write_report

__all__ = ["write_report"]
