"""An offline study: how often would the gate be wrong, beside other decision rules?"""
