"""Watching what serves: do recent votes still look like those before them?"""
