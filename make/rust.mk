# Rust: lint, tests, the model, and tools of cargo.

.PHONY: lint lint-format lint-clippy lint-python
lint: lint-format lint-clippy lint-python
lint-format:
	$(NICE) cargo fmt --all --check
# clippy's driver is a compiler that lints on the way, so that tests and lints share one build. Its lints only warn, as
# programs with them can be tested all the same; cargo prints the warnings of what is compiled already again.
LINTING := RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=--cap-lints=warn
lint-clippy:
	$(LINTING) $(NICE) cargo test --locked --workspace --all-targets --no-run --quiet 2>&1 | tee target/clippy.log
	! grep -E '^(warning|error)' target/clippy.log

.PHONY: test-rust
test-rust:
	$(LINTING) $(NICE) cargo test --locked --workspace --quiet --no-fail-fast

# Of the workspace as a whole: subsets of packages compile the SDKs again, with other features.
UNIT_TESTS := advice calls commands corpus decide events outage pool redact run_task table

.PHONY: model
model: ## visit every state of the protocol's model, with more faults than the tests; many minutes
	cargo test --locked -p ecs-bridge-model -- --include-ignored --nocapture --test-threads 1

# Without optimization, as each mutant is a build of its own. A baseline that fails ends it.
.PHONY: mutants
mutants: ## change the decision of pools in each small way, and see a unit test fail (cargo install --locked cargo-mutants); hours
	cargo mutants -p ecs-bridge-core -j 1 -o target --test-tool cargo \
		-f "shared/core/src/pool/*.rs" -f shared/core/src/decide/pool.rs \
		--cargo-arg=--locked --cargo-arg=--config --cargo-arg=profile.dev.package.ecs-bridge-core.opt-level=0 \
		$(MUTANTS) -- --lib

# Without a sanitizer, stable Rust suffices. There is no unsafe code for one to check.
FUZZ_TARGETS := event request profiles
.PHONY: fuzz
fuzz: $(TOOLS)/bin/cargo-fuzz ## make up events, requests and profiles: SECONDS=60 for each
	for target in $(FUZZ_TARGETS); do \
		mkdir -p tests/fuzz/found/$$target; \
		PATH=$(CURDIR)/$(TOOLS)/bin:$$PATH cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none $$target tests/fuzz/found/$$target tests/fuzz/corpus/$$target -- \
			-max_total_time=$(or $(SECONDS),60) -dict=tests/fuzz/json.dict -print_final_stats=1; \
	done

$(TOOLS)/bin/cargo-fuzz: TOOL := cargo-fuzz@0.13.2
$(TOOLS)/bin/cargo-deny: TOOL := cargo-deny@0.20.2
$(TOOLS)/bin/cargo-cyclonedx: TOOL := cargo-cyclonedx@0.5.9
$(TOOLS)/bin/%:
	cargo install --quiet --locked --root $(TOOLS) $(TOOL)

.PHONY: audit
audit: $(TOOLS)/bin/cargo-deny ## licences, sources, known vulnerabilities; asks github.com
	PATH=$(CURDIR)/$(TOOLS)/bin:$$PATH cargo deny --locked check
