# The commands of the project: each installs what is missing, builds, and does its job.
#
#   make demo    a box with four live inputs, a programme, and its fleet server on this machine
#   make test    every test, against real parts
#   make test-whipclientsink   GStreamer's own WHIP client as a guest
#   make test-broker-cluster   a cluster of rmqttd under a simulated fleet
#   make test-home-assistant   boxes in the real Home Assistant
#   make chaos   server, broker and database killed under load, ROUNDS=100 times
#   make deb     a Debian package of both sides, into target/debian
#   make bench   ratios against what a user would run instead
#   make pages   only the pages, into src/web/dist
#   make check   lints
#   make fuzz    CRATE=mqtt TARGET=topic|payload|command, CRATE=pipelines TARGET=offer|ice_servers|sdpfrag|turn_stream

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test test-whipclientsink test-broker-cluster test-home-assistant chaos bench fuzz check deb pages release setup setup-test

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
export CARGO_TERM_COLOR ?= auto

MEDIA := gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad \
         gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-x gstreamer1.0-alsa fonts-dejavu-core
BUILD := pkg-config libssl-dev libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
LINKED := libgstrtspserver-1.0-dev
TESTS := $(LINKED) mosquitto mosquitto-clients coturn chromium chromium-driver iproute2 iptables nftables procps openssl \
         systemd pulseaudio libasound2-plugins python3 python3-venv simple-whip-client gstreamer1.0-nice postgresql postgresql-client prometheus
RSWEBRTC := libnice10 gstreamer1.0-nice libgstreamer-plugins-bad1.0-dev
BENCH := coturn voctomix-core postgresql g++ $(RSWEBRTC)

help:
	@sed -n '3,13s/^# *//p' Makefile

setup:
	@tests/support/install $(BUILD) $(MEDIA) $$(command -v npm >/dev/null || echo nodejs npm)

setup-test: setup
	@tests/support/install $(TESTS)

WEB := $(shell find src/web -type f -not -path '*/node_modules/*' -not -path '*/dist/*' 2>/dev/null)

pages: setup src/web/dist/.built

src/web/dist/.built: $(WEB) | setup
	@echo "building the pages"
	@cd src/web && npm ci --no-audit --no-fund --loglevel=error && npm run --silent build
	@touch $@

release: pages
	@echo "building r58 (release; the first time takes some ten minutes on two cores)"
	@cargo build --release --locked --bin r58

demo: release
	@exec $${CARGO_TARGET_DIR:-target}/release/r58 demo

deb: release
	@command -v cargo-deb >/dev/null || cargo install --locked cargo-deb
	@tests/support/install dpkg-dev
	@cargo deb --no-build --locked --package r58

test: setup-test pages
	@tests/support/run-tests

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

# The client and what it is made of take more than three minutes to build on two cores: no part of `make test`.
test-whipclientsink: setup-test pages
	@tests/support/install $(RSWEBRTC)
	@cargo build --locked --manifest-path tests/support/rswebrtc/Cargo.toml --target-dir $(TARGET_DIR)
	@R58_WHIPCLIENTSINK=$(abspath $(TARGET_DIR))/debug/whipclientsink \
		cargo test --locked --test promises -- --ignored whipclientsink

# The broker takes some ten minutes to build: no part of `make test`.
RMQTTD := 0.24.0
test-broker-cluster: setup-test pages
	@tests/support/install protobuf-compiler cmake
	@command -v rmqttd >/dev/null || [ -n "$$R58_RMQTTD" ] || cargo install rmqttd --version $(RMQTTD) --locked --debug
	@cargo test --locked --test promises -- --ignored a_broker_node_dies

# Home Assistant wants a newer Python than Debian 12 has, and half a gigabyte: no part of `make test`.
PYTHON_FOR_HOME_ASSISTANT ?= python3.13
HOME_ASSISTANT := $(TARGET_DIR)/home-assistant
test-home-assistant: setup-test pages
	@[ -x $(HOME_ASSISTANT)/bin/hass ] || { $(PYTHON_FOR_HOME_ASSISTANT) -m venv $(HOME_ASSISTANT) && \
		$(HOME_ASSISTANT)/bin/pip install --quiet --requirement tests/support/home-assistant.txt; }
	@R58_HASS=$(abspath $(HOME_ASSISTANT))/bin/hass cargo test --locked --test promises -- --ignored home_assistant_finds

ROUNDS ?= 100
chaos: setup-test pages
	@R58_CHAOS_ROUNDS=$(ROUNDS) cargo test --locked --test promises -- --nocapture anything_dies_at_any_time

# Figures are those of this machine, ratios hold on any. ROOMS="mixer guest" measures only these.
# The peer that decodes guests has dependencies of its own; without it its rows say so.
bench: release
	@tests/support/install $(BENCH)
	@cargo build --release --locked --package r58-bench
	@cargo build --release --locked --bin whipserversrc --manifest-path tests/support/rswebrtc/Cargo.toml --target-dir $(TARGET_DIR) \
		|| echo "whipserversrc could not be built"
	@(cd tests/bench/node-red && npm ci --loglevel=error) || echo "Node-RED could not be installed"
	@$(TARGET_DIR)/release/r58-bench $(ROOMS)

# Coverage-guided fuzzing for SECONDS_EACH seconds; cargo-fuzz wants unstable compiler flags, which RUSTC_BOOTSTRAP unlocks on a stable one.
CRATE ?= mqtt
TARGET ?= topic
SECONDS_EACH ?= 60
fuzz: setup
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	@cd $(CRATE) && RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none $(TARGET) -- -dict=fuzz/words.dict -max_total_time=$(SECONDS_EACH)

check: pages
	@tests/support/install $(LINKED)
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	@cargo fmt --all --check
