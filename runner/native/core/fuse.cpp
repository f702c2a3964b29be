#include "core/fuse.h"

#include <algorithm>

namespace edge {

namespace {

class Fuser {
 public:
  Fuser(const edge_program& program, const Kernels& kernels)
      : program_(program),
        kernels_(kernels),
        list_(unfused(program)),
        done_(list_.size(), false),
        maker_(static_cast<size_t>(program.value_count), -1),
        users_(static_cast<size_t>(program.value_count)) {
    for (size_t i = 0; i < list_.size(); ++i) {
      const edge_instruction& in = list_[i].plain;
      for (int32_t o = 0; o < in.output_count; ++o) maker(in.outputs[o]) = static_cast<int32_t>(i);
      for (int32_t n = 0; n < in.input_count; ++n) {
        users(in.inputs[n]).push_back(static_cast<int32_t>(i));
      }
    }
    users(program.output).push_back(kResult);
    for (int32_t result : {program.hidden, program.draft_output, program.draft_hidden}) {
      if (result >= 0) users(result).push_back(kResult);
    }
  }

  std::vector<Instruction> run() {
    std::vector<Instruction> fused;
    for (size_t i = 0; i < list_.size(); ++i) {
      const OpCode code = code_of(list_[i]);
      if (done_[i]) continue;
      if (code == OpCode::rms_norm && fuse_norm(list_[i])) continue;
      if (code == OpCode::rope && fuse_rope(list_[i])) continue;
      if (fuse_activation(list_[i])) continue;
      if (code == OpCode::linear && !fuse_gate(list_[i])) fuse_sum(static_cast<int32_t>(i));
      fused.push_back(list_[i]);
    }
    return fused;
  }

 private:
  static constexpr int32_t kResult = -1;  // the user of what the program gives

  static OpCode code_of(const Instruction& instruction) {
    return static_cast<OpCode>(instruction.plain.op);
  }
  int32_t& maker(int32_t value) { return maker_[static_cast<size_t>(value)]; }
  std::vector<int32_t>& users(int32_t value) { return users_[static_cast<size_t>(value)]; }
  int32_t width(int32_t value) const { return program_.values[value].width; }

  // The number of the one instruction that reads `value`, if it has this operator; else -1.
  int32_t only_user(int32_t value, std::initializer_list<OpCode> codes) {
    const std::vector<int32_t>& all = users(value);
    if (all.size() != 1 || all[0] == kResult) return -1;
    const OpCode code = code_of(list_[static_cast<size_t>(all[0])]);
    return std::find(codes.begin(), codes.end(), code) != codes.end() ? all[0] : -1;
  }

  // Instruction `number` is done as the last part of `linear`.
  void absorb(Instruction& linear, int32_t number) {
    done_[static_cast<size_t>(number)] = true;
    linear.instructions[kMultiply].push_back(number);
    linear.plain.outputs[0] = list_[static_cast<size_t>(number)].plain.outputs[0];
  }

  // True if the output is halved on a panel's boundary, one half is activated, and their product is
  // all that is made of them.
  bool fuse_gate(Instruction& linear) {
    const int32_t cut = only_user(linear.plain.outputs[0], {OpCode::split});
    if (cut < 0) return false;
    const edge_instruction& split = list_[static_cast<size_t>(cut)].plain;
    if (split.output_count != 2 || width(split.outputs[0]) != width(split.outputs[1]) ||
        width(split.outputs[0]) % kLanes != 0) {
      return false;
    }
    for (int32_t gate : {0, 1}) {
      const int32_t activation = only_user(split.outputs[gate], {OpCode::silu, OpCode::gelu});
      if (activation < 0) continue;
      const Instruction& active = list_[static_cast<size_t>(activation)];
      const int32_t product = only_user(active.plain.outputs[0], {OpCode::mul});
      if (product < 0 || product != only_user(split.outputs[1 - gate], {OpCode::mul})) continue;
      const int32_t half = width(split.outputs[0]);
      linear.first_row = gate * half;
      linear.up_row = (1 - gate) * half;
      linear.epilogue = code_of(active) == OpCode::silu ? Epilogue::silu_mul : Epilogue::gelu_mul;
      done_[static_cast<size_t>(cut)] = true;
      absorb(linear, activation);
      absorb(linear, product);
      return true;
    }
    return false;
  }

  // Takes over an add of the output to something that was there before.
  void fuse_sum(int32_t number) {
    Instruction& linear = list_[static_cast<size_t>(number)];
    const int32_t product = linear.plain.outputs[0], sum = only_user(product, {OpCode::add});
    if (sum < 0) return;
    const edge_instruction& add = list_[static_cast<size_t>(sum)].plain;
    const int32_t residual = add.inputs[0] == product ? add.inputs[1] : add.inputs[0];
    if (maker(residual) >= number) return;
    linear.epilogue = Epilogue::add;
    linear.plain.inputs[linear.plain.input_count++] = residual;
    absorb(linear, sum);
  }

  // Instruction `first` becomes the first work of a part of `user`.
  static void prepend(Instruction& user, int32_t part, const Instruction& first) {
    std::vector<int32_t>& all = user.instructions[static_cast<size_t>(part)];
    all.insert(all.begin(), first.instructions[0].begin(), first.instructions[0].end());
  }

  // True if a mul takes the activation over.
  bool fuse_activation(const Instruction& activation) {
    const OpCode code = code_of(activation);
    if (code != OpCode::silu && code != OpCode::gelu) return false;
    const int32_t active = activation.plain.outputs[0];
    const int32_t number = only_user(active, {OpCode::mul});
    if (number < 0) return false;
    Instruction& product = list_[static_cast<size_t>(number)];
    edge_instruction& in = product.plain;
    const int32_t other = in.inputs[0] == active ? in.inputs[1] : in.inputs[0];
    in.op = static_cast<int32_t>(code == OpCode::silu ? OpCode::silu_mul : OpCode::gelu_mul);
    in.inputs[0] = activation.plain.inputs[0];
    in.inputs[1] = other;
    prepend(product, 0, activation);
    return true;
  }

  // True if an attention takes the rope of its q or k over.
  bool fuse_rope(const Instruction& rope) {
    const edge_instruction& in = rope.plain;
    const int32_t number = only_user(in.outputs[0], {OpCode::attention, OpCode::attend});
    if (number < 0) return false;
    Instruction& attention = list_[static_cast<size_t>(number)];
    static_assert(k_attend_heads == k_attention_heads && k_attend_head_dim == k_attention_head_dim);
    for (int32_t i : {0, 1}) {
      if (attention.plain.inputs[i] != in.outputs[0]) continue;
      if (attention.plain.ints[i] != in.ints[k_rope_heads] ||
          attention.plain.ints[k_attention_head_dim] != in.ints[k_rope_head_dim])
        continue;
      attention.plain.inputs[i] = in.inputs[0];
      attention.rotations[static_cast<size_t>(i)] = {in.weights[0], in.weights[1]};
      prepend(attention, i == 0 ? kRead : kWrite, rope);
      return true;
    }
    return false;
  }

  // True if all that read the norm take it over.
  bool fuse_norm(const Instruction& norm) {
    const edge_instruction& in = norm.plain;
    if (in.weights[0] < 0) return false;
    if (in.ints[0] != width(in.outputs[0])) return false;
    const std::vector<int32_t>& readers = users(in.outputs[0]);
    for (int32_t reader : readers) {
      if (reader == kResult) return false;
      const Instruction& linear = list_[static_cast<size_t>(reader)];
      if (code_of(linear) != OpCode::linear) return false;
      const edge_weight& w = program_.weights[linear.plain.weights[0]];
      const PackedWeight weight{stored_format(w), w.n, w.k, nullptr};
      if (kernels_.linear.scratch_bytes(weight, 1) == 0) return false;
    }
    for (int32_t reader : readers) {
      Instruction& linear = list_[static_cast<size_t>(reader)];
      linear.plain.inputs[0] = in.inputs[0];
      linear.norm = in.weights[0];
      linear.eps = in.floats[0];
    }
    if (!readers.empty()) prepend(list_[static_cast<size_t>(readers[0])], kPrepare, norm);
    return true;
  }

  const edge_program& program_;
  const Kernels& kernels_;
  std::vector<Instruction> list_;
  std::vector<bool> done_;                   // by number in list_: another does its work
  std::vector<int32_t> maker_;               // by value: number in list_; -1: an input
  std::vector<std::vector<int32_t>> users_;  // by value
};

}  // namespace

std::vector<Instruction> unfused(const edge_program& program) {
  std::vector<Instruction> list(static_cast<size_t>(program.instruction_count));
  for (size_t i = 0; i < list.size(); ++i) {
    list[i].plain = program.instructions[i];
    list[i].draft = program.draft >= 0 && static_cast<int32_t>(i) >= program.draft;
    list[i].instructions.fill({static_cast<int32_t>(i)});
  }
  return list;
}

std::vector<Instruction> fuse(const edge_program& program, const Kernels& kernels) {
  return Fuser(program, kernels).run();
}

}  // namespace edge
