"""The studio, a web application on this machine: runs, training, exploring and comparing in a browser.

`server` is the HTTP server, `routes` its API, `records` and `streams` read run directories, `jobs` and `trainer` train
in processes of their own, `remote` and `worker` keep torch out of the server. static/ holds the pages.
"""
