-- The options of setup(), with their defaults; doc/peft-daemon.txt explains them.

local M = {}

---@class peft_daemon.Keys
---@field accept string|false
---@field accept_word string|false
---@field accept_line string|false
---@field dismiss string|false
---@field next string|false
---@field suggest string|false

---@class peft_daemon.Options
---@field cmd string[] the language server
---@field filetypes? string[] where it runs; nil: in every file
---@field root_markers string[]
---@field settings table the server's settings (docs/editors.md)
---@field auto boolean suggest while typing
---@field next_edits boolean suggest changes of other lines
---@field keys peft_daemon.Keys|false

---@type peft_daemon.Options
local DEFAULTS = {
  cmd = { "peft-daemon", "lsp" },
  filetypes = nil,
  root_markers = { ".peft-daemon.toml", ".git" },
  settings = {},
  auto = true,
  next_edits = false,
  keys = {
    accept = "<Tab>",
    accept_word = "<M-Right>",
    accept_line = "<M-C-Right>",
    dismiss = "<C-]>",
    next = "<M-]>",
    suggest = "<M-\\>",
  },
}

---The options in effect.
---@type peft_daemon.Options
M.options = vim.deepcopy(DEFAULTS)

---Merge what the user gave with the defaults; an unknown name or a wrong type is an error that names it.
---@param given? table
function M.set(given)
  given = given or {}
  vim.validate("options", given, "table")
  local types = {
    cmd = "table",
    filetypes = "table",
    root_markers = "table",
    settings = "table",
    auto = "boolean",
    next_edits = "boolean",
    keys = "table",
  }
  for name, value in pairs(given) do
    if not types[name] then
      error(("peft-daemon: there is no option %q; :help peft-daemon-options has all"):format(name), 0)
    end
    if name ~= "keys" or value ~= false then
      vim.validate(name, value, types[name])
    end
  end
  if given.keys then
    for name, lhs in pairs(given.keys) do
      if DEFAULTS.keys[name] == nil then
        error(("peft-daemon: there is no key %q; :help peft-daemon-keys has all"):format(name), 0)
      end
      vim.validate("keys." .. name, lhs, { "string", "boolean" })
    end
  end
  M.options = vim.tbl_deep_extend("force", vim.deepcopy(DEFAULTS), given)
  if M.options.settings.nextEdits == nil then
    M.options.settings.nextEdits = M.options.next_edits and "on" or "off"
  end
end

return M
