"""What Stripe sends us: `taximeter webhooks`."""
