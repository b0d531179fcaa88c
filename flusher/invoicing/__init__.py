"""From usage to invoices: `run` makes them, `deliver` takes them to Stripe, `invoice` says what they are."""
