PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Where it is set, as in many container images, every process would compile every package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-virtual check bench fuzz notebooks clean

# A real scenario through real bad links, and its report. A first visit is no CI gate: that the machine was too busy (3)
# is said, and is no failure.
demo: .venv/ready
	$(BIN)/chatlab run scenarios/demo.yaml || [ $$? = 3 ]

# Four at a time: most tests wait for links and processes, not for a core.
test: .venv/ready
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder

# In virtual time, where nothing disturbs them: minutes of computing. Builds the kernel that they need.
test-virtual: .venv/ready
	$(BIN)/chatlab clock build
	VIRTUAL=true $(BIN)/pytest -n 2 --dist loadfile tests/clock

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# What the server costs beside other servers and with TLS, what the link emulator and the load generator cost beside their
# limits, and what attackers do; best on a machine that does nothing else.
bench: .venv/ready
	$(BIN)/python tests/bench_peers.py
	$(BIN)/python tests/bench_tls.py
	$(BIN)/python tests/bench_link.py
	$(BIN)/python tests/bench_load.py
	$(BIN)/python tests/bench_files.py
	$(BIN)/python tests/bench_stalls.py
	$(BIN)/python tests/bench_floods.py

# Any bytes to whatever reads bytes: server, client, names, scenarios, traces, journals. MINUTES in all.
fuzz: .venv/ready
	$(BIN)/python tests/fuzz --minutes $(or $(MINUTES),10)

notebooks: .venv/ready
	$(BIN)/chatlab notebooks

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

# $(call need,TEST,PACKAGE): install the Debian package when the test fails; without root or apt-get, say so.
define need
{ PATH="$$PATH:/usr/sbin:/sbin"; $(1); } >/dev/null 2>&1 || \
if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	apt-get update -qq && apt-get install -y -qq --no-install-recommends $(2) >/dev/null; \
else \
	echo "chatlab needs the package $(2); on Debian or Ubuntu: sudo apt-get install $(2)" >&2; exit 2; \
fi
endef

.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "chatlab needs Python 3.11 or newer; say which: make PYTHON=python3.11" >&2; exit 2; }
	@$(call need,$(PYTHON) -c 'import ensurepip',python3-venv)
	@$(call need,command -v ip,iproute2)
	$(PYTHON) -m venv --clear .venv
	@# Compiling every package takes a third of the set-up's time, so each is compiled when it is first imported; but for
	@# those that every start of a client or of `chatlab` waits for, which are ready even where Python may not write.
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -c 'import msgspec, prompt_toolkit, wcwidth, yaml, compileall as c, pathlib as p; \
		[c.compile_dir(p.Path(m.__file__).parent, quiet=1) for m in (msgspec, prompt_toolkit, wcwidth, yaml)]'
	@touch $@
