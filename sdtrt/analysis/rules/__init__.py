"""Rules: one file each, with TITLE, a docstring of three parts that the report shows, and `find(view)`.

To add a rule is to add a file here and one with its cases in tests/analysis/rules/cases. A rule yields what it found
in one engine; `sdtrt.analysis.findings` runs them all and adds cost per image and severity. Names with a leading
underscore are helpers. A rule with a TURN runs after those of lower turns (0 without one) and sees what they named.
"""
