"""Invoices: made once, right to the cent, whatever is killed in between."""
