# The deployment. SAM, checkov and the emulator pin many libraries, so each has its own environment.

.PHONY: test-infra
test-infra: programs $(INFRA)/.done .venv-checkov/.done .venv-emulator/.done ## templates, event pattern, roles, dead letters
	cd tests/infra && ../../$(INFRA)/bin/python -m pytest -q --ignore test_sam_build.py

.PHONY: sam-build
sam-build: $(INFRA)/.done ## build the functions for `sam deploy` and check their architecture (ENV=prod: of samconfig.toml; TEMPLATE=file that nests the bridge)
	PATH=$(CURDIR)/$(INFRA)/bin:$$PATH $(INFRA)/bin/python tools/sam_build.py --config-env $(or $(ENV),default) \
		--template-file $(or $(TEMPLATE),template.yaml)

.PHONY: test-sam-build
test-sam-build: $(INFRA)/.done ## build the functions as `make sam-build` does, and look at them; QUICK=1: with programs that are built already
	cd tests/infra && QUICK=$(QUICK) $(NICE) ../../$(INFRA)/bin/python -m pytest -q test_sam_build.py

# For glibc 2.17: the images of Airflow and of Debian 11 take it.
.PHONY: runner-wheel
runner-wheel: $(INFRA)/.done ## the runner's wheel, into dist/: TARGET=aarch64-unknown-linux-gnu
	PATH=$(CURDIR)/$(INFRA)/bin:$$PATH maturin build --release --locked --zig --compatibility manylinux2014 \
		--manifest-path programs/runner/Cargo.toml --target $(or $(TARGET),$(shell uname -m)-unknown-linux-gnu) --out dist

.PHONY: image-wheels
image-wheels: runner-wheel ## what infra/image/Dockerfile installs: the wheels of runner, client and executor, into dist/
	$(INFRA)/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist ./python/ecs_bridge ./python/airflow_ecs_bridge
