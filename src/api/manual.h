/* fasttrain - a deep-learning trainer in a header.                                          MIT license, see LICENSE.
 *
 * MANUAL
 *
 *   1  What it is              6  Your own loop            11  Models
 *   2  Adding it to a program  7  Ownership and memory     12  Mixed precision
 *   3  Concepts                8  Errors and threads       13  Around the optimizer's step
 *   4  A first program         9  Reproducibility          14  Build switches and environment
 *   5  Evaluating, saving...  10  Seeing inside            15  What it does not do
 *
 * 1  WHAT IT IS
 *
 * fasttrain trains neural networks from C and C++. A model is a static graph: forward, backward and the optimizer's step
 * are nodes of it. The graph is compiled into a plan, which knows its memory before it runs and allocates nothing while it
 * runs. Everything needed is in this file; it needs libm and pthreads and nothing else.
 *
 * 2  ADDING IT TO A PROGRAM
 *
 * Copy fasttrain.h. In exactly one C file:
 *
 *     #define FASTTRAIN_IMPLEMENTATION
 *     #include "fasttrain.h"
 *
 * and in all others only the #include. In that one file fasttrain.h comes before any other header, because it asks the
 * system for POSIX functions. The interface is C11 and C++17; the implementation is C11, for GCC and Clang on Linux and
 * macOS, x86-64 and arm64. Compile it with -O2; link with -lm -lpthread.
 *
 * 3  CONCEPTS
 *
 *   context    everything that would be global elsewhere: memory, threads, logger, seed, the last error
 *   graph      the program, and the model's parameters and buffers
 *   tensor     a handle of a value in a graph: {graph, id}, passed by value
 *   layer      a builder that declares parameters under a name and adds ops: ftr_linear(x, "fc1", 64, NULL) makes
 *              "fc1.weight" and "fc1.bias"
 *   plan       a graph compiled for training or for evaluation
 *   source     where samples come from
 *
 * Images are NHWC: [batch, height, width, channels]. Convolution weights are OHWI in memory and OIHW in files, as PyTorch
 * writes them. Linear weights are [out, in]. Batch sizes are part of the graph's shapes.
 *
 * A step is: feed the inputs, run the plan, read what you asked for. ftr_fit() does this over a source, epoch by epoch.
 *
 * 4  A FIRST PROGRAM
 *
 *     ftr_context *ctx;
 *     if (ftr_context_create(NULL, &ctx)) return 1;
 *     ftr_graph *g = ftr_graph_create(ctx);
 *     ftr_tensor x = ftr_input(g, "image", FTR_F32, FTR_SHAPE(64, 8, 8, 1));
 *     ftr_tensor y = ftr_input(g, "label", FTR_I32, FTR_SHAPE(64));
 *     ftr_tensor h = ftr_relu(ftr_batch_norm(ftr_conv2d(x, "conv1", 32, 3, NULL), "bn1", NULL));
 *     ftr_tensor logits = ftr_linear(ftr_global_avg_pool(h), "fc", 10, NULL);
 *
 *     ftr_field fields[] = {{"image", FTR_F32, FTR_SHAPE(8, 8, 1)}, {"label", FTR_I32, ftr_scalar_shape()}};
 *     const void *data[] = {images, labels};
 *     ftr_source *train;
 *     ftr_memory_source(ctx, "train", 1437, fields, data, 2, &train);
 *
 *     ftr_train_desc t = ftr_train_defaults();
 *     t.loss = ftr_cross_entropy(logits, y, NULL);
 *     t.metrics[t.metric_count++] = (ftr_metric){"accuracy", ftr_accuracy(logits, y)};
 *     t.optimizer = ftr_adamw(1e-3);
 *     t.train = train;
 *     t.epochs = 10;
 *     if (ftr_fit(g, &t, NULL)) fprintf(stderr, "%s\n", ftr_error_message(ctx));
 *
 *     ftr_source_destroy(train);
 *     ftr_graph_destroy(g);
 *     ftr_context_destroy(ctx);
 *
 * 5  EVALUATING, SAVING, LOADING
 *
 * ftr_evaluate() runs a source through an evaluation plan. ftr_save_weights() writes parameters and buffers as safetensors;
 * a PyTorch module with the same names loads the file, and ftr_load_weights() reads what PyTorch wrote, in half
 * precision too.
 *
 * Training goes on from another model's weights (transfer learning) by loading all but the layers that are new, and, if
 * the others are to stay as they are, by freezing them:
 *
 *     const char *head[] = {"fc.*"};
 *     ftr_load_desc load = {.skip = head, .skip_count = 1};
 *     ftr_load_report *report;
 *     ftr_status status = ftr_load_weights(g, "resnet50.safetensors", &load, &report);
 *     if (report) ftr_load_report_print(report, ftr_write_file, stderr);
 *     ftr_load_report_destroy(report);
 *     if (status) ...
 *     ftr_freeze(g, "*", &(ftr_freeze_desc){.norm_eval = true});
 *     ftr_unfreeze(g, "fc.*");
 *     ... train the head ...
 *     ftr_unfreeze(g, "*");
 *     ... train all of it, at a lower rate ...
 *
 * A load is complete or refused: what is missing, unexpected or of another shape is an error, and the report has all of
 * it. FTR_LOAD_BY_NAME takes what both sides have. Patterns know '*' (any characters, dots too) and '?' (one). Frozen
 * layers cost no gradients, no optimizer state and no backward pass below the lowest trained one.
 *
 * Which samples are trained on and which held out: ftr_train_test_split() and ftr_k_fold() make lists of sample numbers, by
 * class in proportion if they are given labels, and ftr_source_subset() makes a source of a list (ftr_k_fold() shows a
 * cross-validation). Which learning rate: ftr_find_lr() lets it grow over a short training, and says where the loss falls
 * fastest; parameters are then as before. Mixup and cutmix are two lines between input and model, which an evaluation leaves
 * out (ftr_mix_draw()).
 *
 * A long run keeps checkpoints, and goes on from the newest one when it is started again after a crash, a power cut or the
 * end of its time on a machine:
 *
 *     t.checkpoint.directory = "run1";        // made if need be; one run, one directory
 *     t.checkpoint.every_seconds = 600;       // or every_steps, every_epochs, or mtbf_seconds to have the interval chosen
 *     t.resume = FTR_RESUME_AUTO;             // the same program starts the run and resumes it
 *     t.handle_signals = true;                // SIGTERM: finish the step, save, return with result.preempted
 *     t.max_seconds = 3500;                   // the same before an hour is over
 *
 * A resumed run is the unbroken one, bit by bit, results included. What must not have changed is compared, and named if
 * it has: model, batch size, optimizer and its settings, schedule, seed, number of samples. A save costs a copy of the
 * state; a thread of its own writes it, flushes it and gives it its name. The newest checkpoint that is intact is taken.
 * weights.safetensors in it is an ordinary file of weights.
 *
 * 6  YOUR OWN LOOP
 *
 *     ftr_optimizer sgd = ftr_sgd(0.1);
 *     ftr_plan *plan;
 *     if (ftr_compile(g, &(ftr_compile_desc){.loss = loss, .optimizer = &sgd}, &plan)) ...
 *     for (...) {
 *         ftr_feed(plan, x, images, sizeof images);
 *         ftr_feed(plan, y, labels, sizeof labels);
 *         ftr_step_info info;
 *         if (ftr_step(plan, &info)) ...
 *     }
 *     ftr_plan_destroy(plan);
 *
 * The learning rate follows a schedule if each step begins with
 *
 *         ftr_plan_set_lr(plan, ftr_schedule_lr(&schedule, 0.1, (int64_t)ftr_plan_applied_steps(plan)));
 *
 * (ftr_fit() does so itself: ftr_train_desc.schedule). Parameter groups and other settings are fields of the optimizer:
 *
 *     ftr_param_group backbone = ftr_param_group_defaults();
 *     backbone.pattern = "layer?.*", backbone.lr_scale = 0.1;
 *     ftr_optimizer adamw = ftr_adamw(1e-3);
 *     adamw.no_decay_norms_biases = true;
 *     adamw.groups = &backbone, adamw.group_count = 1;
 *
 * Checkpoints of such a loop: ftr_checkpointer_create() after compiling, ftr_checkpoint_load() to go on from the newest one,
 * then after each step
 *
 *         ftr_checkpoint_point at = {.step = step, .epoch = epoch, .position = batch, .metric = NAN};
 *         if (ftr_checkpoint_due(saver, step) && ftr_checkpoint_save(saver, &at)) ...
 *
 * and ftr_checkpointer_destroy() before the plan's end.
 *
 * 7  OWNERSHIP AND MEMORY
 *
 * What a ..._create() or ftr_compile() hands out is yours and goes back through its ..._destroy(), children first: plans,
 * then graphs and sources, then the context. Tensors are never freed. Data that you pass in are copied, unless the
 * function's comment says otherwise (ftr_memory_source() keeps your pointers). All memory comes from the allocator hook of
 * ftr_context_desc. ftr_plan_memory() says what a plan uses; running it allocates nothing.
 *
 * If that is too much, a budget makes the plan fit:
 *
 *     t.memory_budget = (size_t)2 << 30;      // also a field of ftr_compile_desc
 *
 * Values of the forward pass are then computed a second time in the backward pass instead of being stored (recomputation,
 * gradient checkpointing), the cheapest first and no more than needed; results keep their bits. What cannot fit is refused
 * with the numbers of the smallest plan. Segments are chosen by hand as with torch.utils.checkpoint:
 *
 *     const char *const blocks[] = {"transformer.h.*"};  // each block is a segment
 *     t.recompute = blocks, t.recompute_count = 1;
 *
 * ftr_memory_needed() says what a description would need before anything is allocated, and ftr_find_batch() finds the
 * largest batch that fits, from a function of yours that builds the graph for a batch size:
 *
 *     ftr_status build(void *user, int64_t batch, ftr_graph *graph, ftr_compile_desc *desc) {
 *         ...  desc->loss = loss;  desc->optimizer = user;  return FTR_OK;
 *     }
 *     ftr_optimizer adamw = ftr_adamw(1e-3);
 *     ftr_batch_search search = {.build = build, .user = &adamw, .memory = (size_t)4 << 30, .multiple = 8};
 *     if (ftr_find_batch(ctx, &search, &batch, &memory)) ...
 *
 * 8  ERRORS AND THREADS
 *
 * Every call that can fail returns an ftr_status, and ftr_error_message() has a sentence that names the node, field or file,
 * what was found and what was expected. Builders return handles instead: the first mistake sticks to the graph, later
 * builders do nothing, and ftr_compile() returns it. So a model is written without checks, and checked once. The library
 * never exits, aborts or prints, other than through the logger hook.
 *
 * A context with its graphs, plans and sources is used by one thread at a time. Different contexts are independent.
 *
 * 9  REPRODUCIBILITY
 *
 * On one machine type the numbers depend on the seed alone: not on the number of threads. Random numbers are counter-based:
 * a parameter's first value is a function of (seed, name), dropout of (seed, node, step), the order of samples of (seed,
 * epoch). So nothing but counters has to be kept for a run to be resumed anywhere. ftr_context_desc.seeds sets the seed of
 * one purpose by itself: other first values in the same order of samples, say. A run is resumed with the seeds it began with.
 *
 * 10  SEEING INSIDE
 *
 * ftr_model_summary() prints layers, shapes, parameters and multiply-adds; ftr_graph_print() the graph as text or for
 * Graphviz; ftr_compile_desc.on_pass shows it after each pass; ftr_plan_print() what will run, in order, and where each
 * value lies. Where an infinity or NaN comes from, debug_nonfinite = FTR_NONFINITE_REPORTED says: a field of
 * ftr_train_desc and of ftr_compile_desc.
 *
 * 11  MODELS
 *
 *     ftr_resnet_desc d = {.depth = 18, .features_only = true};
 *     ftr_tensor features = ftr_resnet(image, &d);
 *     ftr_tensor logits = ftr_linear(features, "fc", 10, NULL);
 *
 * ftr_mlp(), ftr_mnist_cnn(), ftr_resnet(), ftr_resnet_cifar(), ftr_mobilenet_v2(), ftr_mobilenet_v3(), ftr_efficientnet()
 * and ftr_efficientnet_lite0() add a network to a graph and return its logits, or its features for a head of your own. Names
 * are torchvision's, so that files of weights go both ways. Two models in one graph need scopes (ftr_scope_push()). They are
 * made of the functions of this header; a builder of yours looks the same, and reports mistakes with ftr_graph_fail().
 *
 * 12  MIXED PRECISION
 *
 * A model is written in f32, and trained in f16 or bf16 by one field:
 *
 *     t.amp = FTR_AMP_BF16;
 *
 * which puts casts in by the rules of PyTorch's autocast, op by op. Parameters, optimizer state, running statistics and
 * losses stay f32, and what you read has its declared type. Choose FTR_AMP_BF16 unless the hardware has f16 alone:
 * gradients in f16 vanish below 6e-8, so that FTR_AMP_FP16 comes with dynamic loss scaling. ftr_train_desc.scaler has its
 * constants, PyTorch's GradScaler's; steps whose gradients overflow are left out and counted (skipped_steps), and
 * schedules follow the steps that were applied. On the CPU activations then take about half the memory. The arithmetic is
 * f32, but for products of bf16 on CPUs where avx512_bf16 is faster, with sums in f32. Half types can be used by hand too:
 * ftr_cast(x, FTR_BF16), and on what it gives.
 *
 * Apart from the type, ftr_optimizer.clip_norm limits the norm of all gradients together; ftr_step_info.grad_norm has it.
 *
 * 13  AROUND THE OPTIMIZER'S STEP
 *
 * A batch that does not fit into memory is taken in parts: with accumulate = 8 eight micro-batches of the graph's batch size
 * are one update, that of their mean gradient. A step is then one micro-batch wherever steps are counted, and
 * applied_steps are updates. Limits of gradients, loss scaling and averages see the whole group; an unfinished one at the
 * end of a run is not applied, but a checkpoint within a group goes on with it.
 *
 *     t.accumulate = 8;
 *
 * Averages of the weights often do better than the last weights. FTR_AVERAGE_EMA is the exponential one, FTR_AVERAGE_SWA the
 * mean; running statistics are averaged with the weights.
 *
 *     t.average.kind = FTR_AVERAGE_EMA, t.average.decay = 0.9999, t.average.warmup = true;
 *     t.evaluate_average = true;     // evaluations, early stopping and the best epoch go by the averages
 *     t.finish_with_average = true;  // and they stay in the graph
 *
 * In a loop of your own ftr_plan_swap_average() brings the averages into the graph, for an evaluation or
 * ftr_save_weights(), and takes them out again. Behind the mean of weights from far apart, running statistics are made anew:
 *
 *     t.average.kind = FTR_AVERAGE_SWA, t.average.start = 75 * updates, t.average.every = updates;  // after epochs 75 ...
 *     if (ftr_fit(g, &t, NULL) || ftr_update_batch_norm(g, &t)) ...
 *
 * 14  BUILD SWITCHES AND ENVIRONMENT
 *
 *   FASTTRAIN_IMPLEMENTATION   this file also defines the functions
 *   FASTTRAIN_SELF             this file's name in quotes, if you rename it: the implementation includes it once an
 *                              instruction set
 *   FTR_API                    what stands before public functions; extern by default
 *   FASTTRAIN_SIMD             environment: portable, avx2, avx512 or neon, to use less than the CPU has
 *   FASTTRAIN_BF16             environment: on or off, whether products of bf16 use avx512_bf16; see ftr_context_create()
 *   FASTTRAIN_WINOGRAD         environment: off, to compute all convolutions as direct sums; see ftr_context_create()
 *   FASTTRAIN_NO_FUSE          environment: fusions to leave out; see ftr_fusion
 *
 * 15  WHAT IT DOES NOT DO
 *
 * Shapes are static: there are no dynamic graphs. The CPU's kernels compute in f32, or sum up in it, whatever the type of
 * storage (f64 is for reference backends). Windows is not supported. */
