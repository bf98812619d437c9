#include "compressors/quantise.h"

struct entries entries_of(const struct message *m, struct code_form form)
{
    return (struct entries){.from = m->values,
                            .count = m->count,
                            .form = form,
                            .code = m->own_code,
                            .scalar = m->own_scalar};
}
