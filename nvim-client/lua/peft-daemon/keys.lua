-- Keys that act on a suggestion exist only while one is shown: in the buffer, over whatever the key did there before,
-- which is put back afterwards. So Tab stays the user's mapping, a jump of a snippet, or a tab.

local config = require("peft-daemon.config")

local M = {}

local ACTIONS = {
  accept = "<Plug>(peft-daemon-accept)",
  accept_word = "<Plug>(peft-daemon-accept-word)",
  accept_line = "<Plug>(peft-daemon-accept-line)",
  dismiss = "<Plug>(peft-daemon-dismiss)",
  next = "<Plug>(peft-daemon-next)",
}

---@class peft_daemon.Borrowed
---@field buffer integer
---@field before table<string, table|false> what the buffer's own mapping was, by key

---@type peft_daemon.Borrowed?
local borrowed

---The buffer's own mapping of a key in Insert mode.
---@param lhs string
---@return table|false
local function own_mapping(lhs)
  local found = vim.fn.maparg(lhs, "i", false, true)
  return found.buffer == 1 and found or false
end

---Take the keys in this buffer.
---@param buffer integer the current one
function M.borrow(buffer)
  if borrowed and borrowed.buffer == buffer or not config.options.keys then
    return
  end
  M.give_back()
  borrowed = { buffer = buffer, before = {} }
  for action, plug in pairs(ACTIONS) do
    local lhs = config.options.keys[action]
    if lhs then
      borrowed.before[lhs] = own_mapping(lhs)
      vim.keymap.set("i", lhs, plug, { buffer = buffer, remap = true, nowait = true, desc = "peft-daemon: " .. action })
    end
  end
end

---Put back what the keys did.
function M.give_back()
  if not borrowed then
    return
  end
  local buffer, before = borrowed.buffer, borrowed.before
  borrowed = nil
  if not vim.api.nvim_buf_is_valid(buffer) then
    return
  end
  vim.api.nvim_buf_call(buffer, function()
    for lhs, mapping in pairs(before) do
      local now = own_mapping(lhs)
      -- Another plugin may have mapped the key meanwhile: then it is that plugin's.
      if now and vim.startswith(now.rhs or "", "<Plug>(peft-daemon-") then
        vim.keymap.del("i", lhs, { buffer = buffer })
        if mapping then
          vim.fn.mapset(mapping)
        end
      end
    end
  end)
end

---Map the keys that ask by hand, which work where nothing is shown, unless they have a meaning already.
function M.map_requests()
  for action, plug in pairs({ suggest = "<Plug>(peft-daemon-suggest)", next = "<Plug>(peft-daemon-next)" }) do
    local lhs = config.options.keys and config.options.keys[action]
    if lhs and vim.fn.maparg(lhs, "i") == "" then
      vim.keymap.set("i", lhs, plug, { remap = true, desc = "peft-daemon: " .. action })
    end
  end
end

return M
