#!/usr/bin/env python3
"""A step of K workers in JAX: one compiled program, the workers by vmap.

    peer_lstm_jax.py --workers K [--steps N] [--threads N]

Wants requirements.txt; tests/bench/peers runs it.  peer_work.py tells what a step is.

The settings are those that were fastest with JAX 0.10.2 on two cores of a Zen 4, K=16:

    kept    a derivative of the recurrence that is ours: 9.6 s of CPU time a step, 11.6 without
            all that a step replaces is donated
    no use  random numbers of another kind (rbg), top-k of one worker after another instead of
            vmap, an unrolled scan, XLA's oneDNN and fast math (within 5 %, either way)

Everything is in float32, as in the others.
"""

import functools
import os

import jax
import jax.numpy as jnp
from jax import lax

from peer_work import Work, arguments, measure


# ------------------------------------------------------------------------------------------------
# An LSTM over time.  Its own derivative of the recurrence makes the weight's gradient one product
# over all steps, where lax.scan's would add one a step.


@jax.custom_vjp
def recurrence(inputs, h, c, weight):
    """Of inputs [time, column, 4 H] -> (outputs [time, column, H], h, c)"""
    return recurrence_forward(inputs, h, c, weight)[0]


def recurrence_forward(inputs, h0, c0, weight):
    def cell(state, x):
        h, c = state
        i, f, g, o = jnp.split(x + h @ weight.T, 4, axis=-1)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (h, c), (h, c, i, f, g, o)

    (h, c), kept = lax.scan(cell, (h0, c0), inputs)
    return (kept[0], h, c), (h0, c0, weight, kept)


def recurrence_backward(kept, grads):
    h0, c0, weight, (hs, cs, i, f, g, o) = kept
    h_before = jnp.concatenate([h0[None], hs[:-1]])
    c_before = jnp.concatenate([c0[None], cs[:-1]])

    def cell(state, x):
        dh, dc = state
        dy, c, c_before, i, f, g, o = x
        dh += dy
        tanh = jnp.tanh(c)
        dc += dh * o * (1 - tanh * tanh)
        gates = jnp.concatenate(
            [
                dc * g * i * (1 - i),
                dc * c_before * f * (1 - f),
                dc * i * (1 - g * g),
                dh * tanh * o * (1 - o),
            ],
            axis=-1,
        )
        return (gates @ weight, dc * f), gates

    dy, dh, dc = grads
    steps = (dy, cs, c_before, i, f, g, o)
    (dh, dc), gates = lax.scan(cell, (dh, dc), steps, reverse=True)
    return gates, dh, dc, jnp.einsum("tbg,tbh->gh", gates, h_before)


recurrence.defvjp(recurrence_forward, recurrence_backward)


def dropout(work, key, x):
    if work.dropout == 0:
        return x
    keep = 1 - work.dropout
    return jnp.where(jax.random.bernoulli(key, keep, x.shape), x / keep, 0)


def loss_of(work, params, state, tokens, targets, key):
    """[time, column] twice -> mean loss over K, new state"""
    keys = jax.random.split(key, 1 + work.layers)
    x = dropout(work, keys[0], params["encoder.weight"][tokens])
    after = []
    for layer in range(work.layers):
        bias = params[f"rnn.bias_ih_l{layer}"] + params[f"rnn.bias_hh_l{layer}"]
        inputs = x @ params[f"rnn.weight_ih_l{layer}"].T + bias
        x, h, c = recurrence(inputs, *state[layer], params[f"rnn.weight_hh_l{layer}"])
        after.append((h, c))
        x = dropout(work, keys[1 + layer], x)
    logits = x @ params["decoder.weight"].T + params["decoder.bias"]
    right = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - right) / work.workers, after


# ------------------------------------------------------------------------------------------------
# A step


def encode(work, residual):
    """Of one worker: what is left, indices, values."""
    index = lax.top_k(jnp.abs(residual), work.keep(residual.size))[1]
    value = residual[index]
    return residual.at[index].set(0, unique_indices=True, mode="promise_in_bounds"), index, value


def clip_scale(work, grads):
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in grads.values()))
    return jnp.minimum(1, work.clip / (norm + 1e-6))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(1, 2, 3))
def step_of(work, params, residual, state, tokens, targets, key):
    """The loss is divided by K, so the sum of the workers is their mean."""
    gradient = jax.value_and_grad(functools.partial(loss_of, work), has_aux=True)
    keys = jax.random.split(key, work.workers)
    (loss, state), grads = jax.vmap(gradient, (None, 0, 0, 0, 0))(
        params, state, tokens, targets, keys
    )
    scale = jax.vmap(functools.partial(clip_scale, work))(grads)
    params, residual = dict(params), dict(residual)
    for name, weight in params.items():
        grad = grads[name].reshape(work.workers, -1) * scale[:, None]
        if weight.ndim < 2:
            params[name] = weight - work.lr * jnp.sum(grad, axis=0)
            continue
        wanted = residual[name] + grad
        residual[name], index, value = jax.vmap(functools.partial(encode, work))(wanted)
        flat = weight.reshape(-1).at[index.reshape(-1)]
        flat = flat.add(-work.lr * value.reshape(-1), mode="promise_in_bounds")
        params[name] = flat.reshape(weight.shape)
    return params, residual, state, jnp.sum(loss)


class Trainer:
    """The model, and every worker's residual memory and hidden state."""

    def __init__(self, work):
        self.work = work
        self.key = jax.random.key(work.seed)
        self.params = {name: jnp.asarray(w) for name, w in work.weights().items()}
        self.residual = {
            name: jnp.zeros((work.workers, w.size)) for name, w in self.params.items() if w.ndim > 1
        }
        shape = (work.workers, work.columns, work.hidden)
        self.state = [(jnp.zeros(shape), jnp.zeros(shape)) for _ in range(work.layers)]

    def step(self, tokens, targets):
        self.key, key = jax.random.split(self.key)
        self.params, self.residual, self.state, loss = jax.block_until_ready(
            step_of(self.work, self.params, self.residual, self.state, tokens, targets, key)
        )
        return float(loss)


def main():
    args = arguments(__doc__.splitlines()[0])
    work = Work(workers=args.workers)
    measure(f"jax {jax.__version__}", Trainer(work), work, args.steps)


if __name__ == "__main__":
    main()
