/*
 * lstm -- a word-level language model: embedding, LSTM layers, a projection onto the vocabulary.
 *
 * Zaremba, Sutskever, Vinyals: Recurrent neural network regularization, 2014, as pytorch/examples
 * and the first reference have it: dropout on the embedding, between layers and on the last
 * output; weights uniform on +-0.1, those of the LSTM on +-1/sqrt(hidden).  Two layers of 700 and
 * 10,000 words are 21,861,200 parameters; tied, of 1500, 51,034,000.
 */
#include "models/model.h"
#include "sim/graph.h"

#include <stddef.h>

enum { HIDDEN, LAYERS, DROPOUT, TIED };

static const struct setting settings[] = {
    [HIDDEN] = {"hidden", 200, 1, 65536, "units of a layer, and of the embedding", WHOLE},
    [LAYERS] = {"layers", 2, 1, 16, "LSTM layers", WHOLE},
    [DROPOUT] = {"dropout", 0, 0, 0.999, "probability of zeroing, on the input of every layer",
                 NUMBER},
    [TIED] = {"tied", 0, 0, 1, "the projection uses the embedding's weight", SWITCH},
    {0},
};

static void lstm_build(struct graph *g, const double *values, uint32_t classes)
{
    uint32_t hidden = (uint32_t)values[HIDDEN];
    float dropout = (float)values[DROPOUT];
    struct node *x = graph_embedding(g, "encoder.weight", classes, hidden, 0.1f);

    x = graph_dropout(g, x, dropout); /* K B, T, H */
    for (uint32_t layer = 0; layer < (uint32_t)values[LAYERS]; layer++) {
        x = graph_lstm(g, x, "rnn", layer, hidden); /* K B, 1 + T, H */
        x = graph_dropout(g, x, dropout);           /* K B, T, H */
    }
    x = graph_linear(g, x, "decoder", classes, 0.1f, values[TIED] ? "encoder.weight" : NULL);
    graph_softmax_loss(g, x); /* K B T, V */
}

const struct model lstm_model = {
    .name = "lstm",
    .paper = "Zaremba, Sutskever, Vinyals: Recurrent neural network regularization, 2014",
    .settings = settings,
    .build = lstm_build,
};
