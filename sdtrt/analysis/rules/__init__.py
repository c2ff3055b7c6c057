"""Rules of the report: what each finds in one engine, why that costs time, and what to do.

A file is one rule: TITLE, a docstring with the parts "What it finds", "Why it costs" and "What to do" that the report
shows, and `find(view)`, which yields what it found. A file with TITLES instead holds several rules of one idea, each a
function of that name with such a docstring. A rule with an ORDER (0 without one) runs after those of lower orders and
sees which layers they reported. `sdtrt.analysis.findings` runs all rules and adds cost per image and severity. To add a
rule is to add a file here and one with its cases in tests/analysis/rules/cases; what rules share is in `rule_support`.
"""
