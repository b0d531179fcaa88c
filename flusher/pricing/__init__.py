"""What usage costs: plan and quantities in, invoice lines out.

Everything here is pure: no clock, no I/O, no float. The same arguments give the same lines, ids included, on
any machine and at any time. `rate` is the entry; `plan` holds the values it takes, `line` the values it gives.
"""
