"""What is wrong with a set-up, and how to mend it: each module looks at one part and returns findings."""
