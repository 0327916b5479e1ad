"""Completion: from a request to text worth showing; `stream` has the order, `service` the decisions."""
