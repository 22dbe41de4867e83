"""Monitoring: drift of recent votes against earlier ones, and the status of the lake."""
