# Tests on the local stack, and the programs that they start.

.PHONY: programs
programs:
	$(if $(ECS_BRIDGE_PROGRAM),,cargo build --locked $(PROGRAMS))

# The programs, and the one that replays chaos runs.
.PHONY: replay
replay:
	$(if $(ECS_BRIDGE_PROGRAM),,cargo build --locked $(PROGRAMS) -p ecs-bridge-model)

# A folder of tests is a target, which runs it: `make tests/stack/pool`. Those of the local stack each start their own:
STACKS := $(addprefix tests/,suites stack/local stack/functions stack/e2e stack/pool stack/secrets docs)
FAULTS := $(addprefix tests/,stack/reconcile protocol/crash protocol/chaos)
.PHONY: $(STACKS) $(FAULTS) test-stacks test-faults test-e2e
$(STACKS) $(FAULTS): replay $(VENV)/.done
	$(PYTEST) -q $@

test-stacks: $(STACKS)
test-faults: $(FAULTS)
test-e2e: test-stacks test-faults ## the functions on the local stack, also under faults

.PHONY: chaos
chaos: replay $(VENV)/.done ## a run under faults: SEED=n N=n
	$(VENV)/bin/python tests/protocol/chaos/run.py --seed $(or $(SEED),1) --submissions $(or $(N),300)

# The last release: its tag, or in a clone without tags the last commit before the changelog told of a change.
EARLIER ?= $(or $(shell git describe --tags --abbrev=0 --match 'v*' 2>/dev/null),$(shell \
	git log --format=%H --reverse -S'### Changed' -- CHANGELOG.md | head -n 1)^)
.PHONY: chaos-versions
chaos-versions: replay $(VENV)/.done ## the same with functions of the last release beside these: SEED=n N=n EARLIER=commit
	rm -rf target/earlier && mkdir -p target/earlier
	git archive $(EARLIER) | tar -x -C target/earlier
	cargo build --locked --manifest-path target/earlier/Cargo.toml --target-dir target/earlier-build \
		$(foreach name,$(FUNCTIONS),-p $(name))
	$(VENV)/bin/python tests/protocol/chaos/run.py --seed $(or $(SEED),1) --submissions $(or $(N),300) \
		--earlier $(CURDIR)/target/earlier-build/debug
