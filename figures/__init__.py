"""Pictures drawn from stored records, and the command line that ties the house together."""
