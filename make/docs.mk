# Files that are generated for the documents.

.PHONY: openapi
openapi: $(VENV)/.done ## write docs/openapi.yaml as the JSON that submit serves
	$(VENV)/bin/python -c 'import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout, separators=(",", ":"))' \
		< docs/openapi.yaml > functions/submit/src/openapi.json

.PHONY: record
record: programs .venv-airflow/.done ## record docs/img/demo.svg anew
	$(AIRFLOW)/python docs/site/record.py

.PHONY: screenshots
screenshots: programs .venv-airflow/.done ## take the screenshots of docs/airflow-ui.md anew, in a headless Chromium; minutes
	$(AIRFLOW)/python docs/site/screenshots.py

.PHONY: plots
plots: .venv-plots/.done ## draw the plots of docs/performance.md from its table
	.venv-plots/bin/python docs/site/plots.py
