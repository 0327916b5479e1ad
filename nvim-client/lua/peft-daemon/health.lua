-- :checkhealth peft-daemon

local client = require("peft-daemon.client")
local config = require("peft-daemon.config")

local M = {}

local LIMIT_MS = 60000

---@param command string[]
---@return string? output
---@return string? failure
local function output(command)
  local started, process = pcall(vim.system, command, { text = true })
  if not started then
    return nil, tostring(process)
  end
  local done = process:wait(LIMIT_MS)
  if done.code ~= 0 and done.stdout == "" then
    return nil, vim.trim(done.stderr)
  end
  return vim.trim(done.stdout)
end

local function check_installation(path)
  local answer, failure = output({ path, "doctor", "--json" })
  local read, report = pcall(vim.json.decode, answer or "")
  if not read then
    vim.health.error("`peft-daemon doctor` failed: " .. (failure or answer or ""))
    return
  end
  for _, check in ipairs(report.checks) do
    local text = check.name .. ": " .. check.detail
    if check.ok then
      vim.health.ok(text)
    else
      vim.health.error(text, check.fix ~= "" and { check.fix } or nil)
    end
  end
end

local function check_clients()
  local clients = vim.lsp.get_clients({ name = client.NAME })
  if #clients == 0 then
    vim.health.warn("the language server runs in no buffer", { "Open a file that has a file type (:set filetype?)" })
    return
  end
  for _, each in ipairs(clients) do
    local buffers = vim.tbl_count(each.attached_buffers)
    vim.health.ok(("the language server runs in %d buffer%s"):format(buffers, buffers == 1 and "" or "s"))
    if vim.lsp.inline_completion and vim.lsp.inline_completion.is_enabled({ client_id = each.id }) then
      vim.health.warn("Neovim shows its inline completions too", {
        "Call vim.lsp.inline_completion.enable() before this plugin is set up, or not at all",
      })
    end
    local status = client.status(next(each.attached_buffers))
    local message = status and status.message
    if type(message) == "string" and message ~= "" then
      vim.health.warn(message)
    end
    for _, document in ipairs(status and status.off or {}) do
      vim.health.info("no suggestions in " .. vim.uri_to_fname(document.uri) .. ": " .. document.why)
    end
  end
end

local function check_next_edits()
  if not config.options.next_edits then
    vim.health.info("next edits are off (:help peft-daemon-next-edits)")
  elseif vim.fn.hasmapto("<Plug>(peft-daemon-next-edit)", "n") == 0 then
    vim.health.warn("next edits are on, but no key goes to them", {
      'vim.keymap.set("n", "<Tab>", "<Plug>(peft-daemon-next-edit)")',
    })
  else
    vim.health.ok("next edits are on")
  end
end

local function check_keys()
  if not config.options.keys then
    vim.health.info("no keys; map <Plug>(peft-daemon-accept) and others (:help peft-daemon-keys)")
    return
  end
  for action, lhs in vim.spairs(config.options.keys) do
    if lhs then
      local before = vim.fn.maparg(lhs, "i", false, true)
      local meaning = before.desc or before.rhs
      local other = meaning and not meaning:find("peft-daemon", 1, true)
      if action == "suggest" and other then
        vim.health.warn(("%s is mapped already (%s), so it does not suggest"):format(lhs, meaning), {
          "Choose another one: keys = { suggest = … }",
        })
      elseif other then
        vim.health.ok(("%s: %s while a suggestion is shown, else %s"):format(lhs, action, meaning))
      else
        vim.health.ok(("%s: %s"):format(lhs, action))
      end
    end
  end
end

---Check what the plugin needs.
function M.check()
  vim.health.start("Neovim")
  if vim.fn.has("nvim-0.11") == 0 then
    vim.health.error("Neovim 0.11 or later is needed")
    return
  end
  vim.health.ok(tostring(vim.version()))

  vim.health.start("peft-daemon")
  local path = client.executable()
  if not path then
    vim.health.error(client.missing())
    return
  end
  vim.health.ok((output({ path, "--version" }) or "it does not run") .. " at " .. path)
  check_installation(path)

  vim.health.start("this Neovim")
  check_clients()
  check_next_edits()
  check_keys()
end

return M
